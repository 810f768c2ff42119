"""Holds one file per format: how a traced model is written and how the file is read back."""
