"""The curve of a training, as stages record it."""

from __future__ import annotations

from dataclasses import asdict

from toolkit.stages.detail import CurvePoint
from toolkit.training.checkpoint import FitResult


def curve_of(result: FitResult) -> tuple[CurvePoint, ...]:
    """Returns one point for every validation of a training."""
    return tuple(CurvePoint(**asdict(point)) for point in result.curve)
