"""The search for a plan: pure functions of tables and scores. Nothing here imports torch."""
