"""The programs that made the results under reports/results."""
