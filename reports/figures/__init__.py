"""Figures of the reports: each module draws one from plain numbers and returns it, without global state."""
