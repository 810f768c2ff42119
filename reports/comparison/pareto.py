"""Pareto fronts: plain numbers in, the points that no other point beats out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.recipe.recipe import Family


@dataclass(frozen=True)
class Point:
    """One measured model. `step` is its place in the run, `costs` are ratios to the dense model by name of the cost."""

    run: str
    family: Family
    step: int
    stage: str
    costs: Mapping[str, float]
    quality: float


def front(points: Iterable[Point], cost: str) -> list[Point]:
    """The points that none dominates, by rising cost.

    One point dominates another if it costs no more and is no worse, and is better in at least one of the two;
    so points that are equal in both stay together.
    """
    ranked = sorted(points, key=lambda point: (point.costs[cost], -point.quality))
    members: list[Point] = []
    for point in ranked:
        last = members[-1] if members else None
        ties = last is not None and (point.costs[cost], point.quality) == (last.costs[cost], last.quality)
        if last is None or ties or point.quality > last.quality:
            members.append(point)
    return members
