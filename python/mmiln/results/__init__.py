"""What training, measuring and predicting give back."""
