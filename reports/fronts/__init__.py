"""Writes the page of a planner's sweep: fronts of depth, width and both."""
