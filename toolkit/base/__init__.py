"""Holds what everything stands on: errors, the console, bases of settings, files, and what all commands share."""
