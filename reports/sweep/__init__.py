"""Writes the table and the figure of a sweep."""
