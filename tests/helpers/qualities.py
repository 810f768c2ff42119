"""Figures as tasks give them, for tests of what is done with them."""

from __future__ import annotations

from toolkit.measure.results import Quality


def quality_of(value: float, num_examples: int = 40, margin: float | None = None) -> Quality:
    """Returns an accuracy on validation data; `margin` is half of its 95 % interval."""
    interval = None if margin is None else (value - margin, value + margin)
    return Quality(metric="accuracy", split="validation", value=value, num_examples=num_examples, interval=interval)
