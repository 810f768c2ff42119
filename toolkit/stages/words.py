"""Phrases that several stages are told in."""

from __future__ import annotations


def early_stop(patience: int | None) -> str:
    """Returns when a training ends before its last step; empty without `patience`."""
    return "" if patience is None else f", stopping after {patience} validations without improvement"


def kept_weights(select: str) -> str:
    """Returns which weights a training keeps where that is not the default, the best ones.

    The default is not said: records of before there was a choice read as if they had it.
    """
    return ", and keeps the last weights whatever validation says" if select == "last" else ""
