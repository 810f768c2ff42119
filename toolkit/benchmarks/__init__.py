"""Holds the programs that made the results under reports/results."""
