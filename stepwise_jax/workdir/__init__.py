"""The files of one run: records, checkpoints, predictions."""
