"""Reports and figures, made from the records of runs. Nothing here imports JAX."""
