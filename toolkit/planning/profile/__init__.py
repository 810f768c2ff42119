"""Measures a model for planning: finds the possible changes, and measures the cost and the loss of each."""
