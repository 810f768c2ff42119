"""Holds the task moving-digits: clips of handwritten digits that move over photographs, with its trained network."""
