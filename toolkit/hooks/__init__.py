"""Running a model to look at it: modes, tensors, points that are watched, order of calls, forward passes."""
