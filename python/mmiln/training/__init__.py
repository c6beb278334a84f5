"""The training loop around a step, what every model can do with it, and what a run is resumed from."""
