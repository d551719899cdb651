"""The pure functions that training is made of, and that a researcher replaces."""
