"""How much of the plane of cost and quality a front covers: plain numbers in, an area out."""

from __future__ import annotations

from collections.abc import Sequence


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Area that the points dominate, up to the reference; points are (cost, quality), less and more is better.

    A point that is not better than the reference in both covers nothing. Zitzler and Thiele 1998, for two objectives.
    """
    most_cost, least_quality = reference
    area, reached = 0.0, least_quality
    for cost, quality in sorted(points):
        if cost < most_cost and quality > reached:
            area += (most_cost - cost) * (quality - reached)
            reached = quality
    return area
