"""Measures VA-RED^2 with the controls that the paper lacks: random gates, constant options, an oracle, equal steps."""
