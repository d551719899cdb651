"""The files of one run: configuration, records, checkpoints, predictions."""
