"""Depth: finds the residual blocks of a model and replaces them by stand-ins that hand the stream on."""
