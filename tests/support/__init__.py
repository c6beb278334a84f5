"""What tests share: builders of data and models, checks, examples. No test module imports another one."""
