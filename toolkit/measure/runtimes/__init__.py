"""Holds one file per runtime: how a model is made ready to run in it. Importing them imports no torch."""
