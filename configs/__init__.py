"""One experiment a file: `get_config()` returns an `ExperimentConfig`, and `get_rows()` a table of them by row."""
