"""The pure functions that training consists of, and that a researcher replaces."""
