"""The baselines, one utterance at a time, in elementary tensor operations."""
