"""What needs a card. Without one, `--emulate-cuda` runs all of it that the kernels on the CPU can do."""
