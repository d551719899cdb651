"""The programs that run on the devices: what they compute, how they are compiled, and the memory that they need."""
