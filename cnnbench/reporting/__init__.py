"""Runs and sweeps, finished or not, gathered from their directories and set beside each other and the papers."""
