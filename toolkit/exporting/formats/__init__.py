"""Holds one file or folder per format: how a model is written and how the file is read back."""
