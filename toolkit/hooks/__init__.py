"""Handling any model: copies, folded weights, modes, watched points, and the ways on which it is run."""
