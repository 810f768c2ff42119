"""Saves and loads models without pickle: as a manifest of the structure, and weights."""
