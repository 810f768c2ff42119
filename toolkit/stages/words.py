"""Phrases that several stages are told in."""

from __future__ import annotations


def early_stop(patience: int | None) -> str:
    """Returns when a training ends before its last step; empty without `patience`."""
    return "" if patience is None else f", stopping after {patience} validations without improvement"
