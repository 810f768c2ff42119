"""Writes the files that a project of one's own starts from: one file per kind, beside the files that it copies."""
