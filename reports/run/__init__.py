"""Writes the page of one run, and the table at its end."""
