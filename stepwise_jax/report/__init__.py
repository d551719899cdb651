"""Reports and pictures, made from the records of runs. Nothing here imports JAX."""
