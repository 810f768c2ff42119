"""Detects actions in sensor streams: holds the detector, its losses, its metric and two data sets."""
