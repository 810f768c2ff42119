"""Closed-form repair: refits linear and convolution layers by least squares after a cut."""
