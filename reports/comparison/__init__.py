"""Writes the page of several runs side by side, with their Pareto fronts."""
