"""How fast mmiln is beside PyTorch. `python benchmarks/run.py` prints every table."""
