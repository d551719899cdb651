"""The `compare` command: plans a design, or trains the runs of a comparison."""
