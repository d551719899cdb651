"""Uses a trained network: predictions and exports."""
