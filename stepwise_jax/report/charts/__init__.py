"""Training curves: their stages, and their data for the page's script."""
