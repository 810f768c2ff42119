"""Saved models without pickle: a manifest of the structure, and weights."""
