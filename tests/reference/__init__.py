"""The model in plain float64 PyTorch, one utterance at a time: slow, plain, the core's measure."""
