"""Holds the records that a run and a plan leave behind; reports read nothing else. Nothing here imports torch."""
