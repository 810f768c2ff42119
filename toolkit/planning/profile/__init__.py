"""What is measured of a model for planning: the choices there are, their cost and their loss."""
