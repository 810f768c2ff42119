"""Sweeps: variants of a recipe times seeds, each cell a run."""
