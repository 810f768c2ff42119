"""The task `ramps`, made up: which of its channels rises fastest."""
