"""One experiment per file: `get_config()` returns an `ExperimentConfig`, and `get_rows()` several of them by name."""
