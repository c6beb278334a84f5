"""Speed of mmiln compared with PyTorch. `python benchmarks/run.py` prints every table."""
