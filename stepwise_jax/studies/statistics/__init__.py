"""Statistics of paired comparisons: pure functions over plain numbers."""
