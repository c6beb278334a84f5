"""One script for each op of `mmiln.functional`: `python -m benchmarks.ops.attention`."""
