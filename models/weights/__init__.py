"""Files of weights: read without PyTorch, converted to Flax's variables and back, and written."""
