"""Writes phrases that the descriptions of several stages share."""

from __future__ import annotations


def early_stop(patience: int | None) -> str:
    """Returns when a training ends before its last step, or an empty text without `patience`."""
    return "" if patience is None else f", stopping after {patience} validations without improvement"


def kept_weights(select: str) -> str:
    """Returns which weights a training keeps, or an empty text for the default, the best ones.

    The default is left out so that older records, which lack the setting, read the same.
    """
    return ", and keeps the last weights whatever validation says" if select == "last" else ""
