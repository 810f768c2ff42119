"""Holds the stand-ins: the closed list of modules that may replace a block in a compressed model."""
