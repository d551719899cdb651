"""The machine: devices, sharding, several hosts, signals, threads, and the compilation cache."""
