"""Temporal action detection on sensor streams: the detector, its losses, its metric and two data sets."""
