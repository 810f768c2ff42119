"""Reads, checks, composes and describes recipes, and estimates how long they take, all without torch."""
