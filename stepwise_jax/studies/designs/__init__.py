"""Designs of comparisons: fixed before the first run, hashed, and compared with what was done."""
