"""One training run, from opening its data to its summary."""
