"""Runs recipes: applies stage after stage, and measures the model after each."""
