"""The preflight: what can be done with a model, found out in seconds, with the reasons against the rest."""
