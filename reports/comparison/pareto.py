"""Finds Pareto fronts: the points that no other point beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.recipe.recipe import Family


@dataclass(frozen=True)
class Point:
    """Describes one measured model.

    run: the label of the run.
    step: the index of the step in the run; 0 is the dense model.
    stage: the type of the step's stage.
    costs: ratios to the dense model, by `Cost.key`.
    quality: the value of the task's metric.
    """

    run: str
    family: Family
    step: int
    stage: str
    costs: Mapping[str, float]
    quality: float


def front(points: Iterable[Point], cost: str) -> list[Point]:
    """Returns the points that no other one dominates, by rising cost.

    A point dominates another if it costs no more and is no worse, and is better in at least one of the two. Points that
    are equal in both do not dominate each other.
    """
    ranked = sorted(points, key=lambda point: (point.costs[cost], -point.quality))
    members: list[Point] = []
    for point in ranked:
        last = members[-1] if members else None
        ties = last is not None and (point.costs[cost], point.quality) == (last.costs[cost], last.quality)
        if last is None or ties or point.quality > last.quality:
            members.append(point)
    return members
