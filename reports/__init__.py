"""Pages and figures of runs, from their `run.json` alone: `python -m reports RUN_DIR...`. Never imports torch."""
