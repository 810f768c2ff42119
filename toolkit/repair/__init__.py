"""Repairs models in closed form: refits linear and convolution layers by least squares after a cut."""
