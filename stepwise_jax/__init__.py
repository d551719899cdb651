"""Progressive step-wise training: how much data, which batch size and which learning rate, when."""

__version__ = "0.2.0"
