"""Holds the task tad-watch: exercises in spliced smartwatch recordings, with its trained baseline."""
