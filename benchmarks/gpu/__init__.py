"""On a card: `python -m benchmarks.gpu.step`, `python -m benchmarks.gpu.ops`; `make gpu-check` runs both."""
