"""The page of a planner's sweep: fronts of depth, width and both."""
