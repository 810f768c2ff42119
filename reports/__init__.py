"""Writes pages and figures of runs from their records alone: `python -m reports RUN_DIR...`. Never imports torch."""
