"""Computes how much of the plane of cost and quality a front covers."""

from __future__ import annotations

from collections.abc import Sequence


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Returns the area that points dominate, up to a reference point (Zitzler and Thiele 1998, for two objectives).

    A point that is not better than the reference in both coordinates covers nothing.

    points: pairs of a cost, of which less is better, and a quality, of which more is better.
    """
    most_cost, least_quality = reference
    area, reached = 0.0, least_quality
    for cost, quality in sorted(points):
        if cost < most_cost and quality > reached:
            area += (most_cost - cost) * (quality - reached)
            reached = quality
    return area
