"""One experiment a file: `get_config()` returns an `ExperimentConfig`."""
