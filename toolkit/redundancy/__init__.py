"""Finds how far outputs of convolutions repeat themselves over channels and time, and rebuilds what repeats."""
