"""The stage `round_weights`, made up: rounds all weights."""
