"""Runs sweeps: variants of a recipe times seeds, where each cell is a run."""
