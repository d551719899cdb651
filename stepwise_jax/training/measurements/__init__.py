"""What is measured of a run beside its training: scores, gradient noise, time."""
