"""Models in the formats of other programs, each file checked against the model that it was made from."""
