"""Settings of every test."""

import torch

# Tests are small: a second thread gains nothing and, beside another busy process, loses a lot.
torch.set_num_threads(1)
