"""One op of `mmiln.functional` each: `python -m benchmarks.ops.attention`."""
