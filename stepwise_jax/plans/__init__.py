"""The plan of a run: its stages, the strategies of the paper, and control strategies to compare them with."""
