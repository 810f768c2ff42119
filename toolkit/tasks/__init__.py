"""Holds the tasks: a model, its data and its metric behind one protocol, and a card that needs no torch."""
