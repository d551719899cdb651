"""Data sets on disk as TFDS array_record files: downloaded, written, located, opened, read and verified."""
