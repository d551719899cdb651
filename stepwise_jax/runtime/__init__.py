"""The machine: devices, sharding, several hosts, signals, streams, threads, and the compilation cache."""
