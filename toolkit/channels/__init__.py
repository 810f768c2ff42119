"""Which channels of a model can be cut together, and cutting them: found by what the model computes, not by class."""
