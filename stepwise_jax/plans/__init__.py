"""The plan of a run: its stages, the paper's strategies, and the controls that they are compared with."""
