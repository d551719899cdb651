"""Where the jobs of a study run: on this machine, under Slurm, or on a Ray cluster."""
