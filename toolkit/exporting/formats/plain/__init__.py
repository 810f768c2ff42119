"""Holds the format `plain`: weights, and a readable load.py that needs torch and the model's own library alone."""
