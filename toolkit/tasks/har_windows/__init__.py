"""Holds the tasks har-windows: activities in windows of 2.56 s, by a small 1-D convolutional network."""
