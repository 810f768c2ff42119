"""Holds the stand-ins: the closed list of modules that may replace a block or a layer in a compressed model."""
