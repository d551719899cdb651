"""Progressive step-wise training: how much data, which batch size and which learning rate, when."""
