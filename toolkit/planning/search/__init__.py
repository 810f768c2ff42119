"""Searches for a plan with pure functions of tables and scores. Nothing here imports torch."""
