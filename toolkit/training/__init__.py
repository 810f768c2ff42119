"""Trains models: holds the loop that all stages share, and the checkpoint from which it continues."""
