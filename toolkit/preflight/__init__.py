"""Tries out in seconds what can be done with a model, and gives the reasons against the rest."""
