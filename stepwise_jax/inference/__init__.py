"""A trained network: predictions and exports."""
