"""Pareto fronts against brute force."""

from __future__ import annotations

import random

import pytest

from reports.comparison.pareto import Point, front


def point(cost: float, quality: float, run: str = "run") -> Point:
    return Point(run, "depth", 1, "block_drop", {"macs_ratio": cost}, quality)


def dominates(one: Point, other: Point) -> bool:
    cheaper, better = one.costs["macs_ratio"] - other.costs["macs_ratio"], one.quality - other.quality
    return cheaper <= 0 and better >= 0 and (cheaper < 0 or better > 0)


@pytest.mark.parametrize("seed", range(200))
def test_front_is_what_nothing_dominates(seed: int) -> None:
    random_ = random.Random(seed)
    grid = random_.choice([3, 10, 1000])  # coarse grids are full of ties
    points = [
        point(random_.randrange(grid) / grid, random_.randrange(grid) / grid, f"run {number}")
        for number in range(random_.randrange(1, 30))
    ]
    expected = [one for one in points if not any(dominates(other, one) for other in points)]
    found = front(points, "macs_ratio")
    assert sorted(member.run for member in found) == sorted(member.run for member in expected)
    assert [member.costs["macs_ratio"] for member in found] == sorted(member.costs["macs_ratio"] for member in found)
    assert front(reversed(found), "macs_ratio")[0].quality == found[0].quality


def test_equal_points_stay_together() -> None:
    twins = [point(0.5, 0.6, "a"), point(0.5, 0.6, "b")]
    assert [member.run for member in front([*twins, point(0.5, 0.5, "worse")], "macs_ratio")] == ["a", "b"]


def test_equal_quality_at_higher_cost_is_off_the_front() -> None:
    assert [member.run for member in front([point(0.9, 0.6, "dear"), point(0.5, 0.6, "cheap")], "macs_ratio")] == [
        "cheap"
    ]


def test_no_points() -> None:
    assert front([], "macs_ratio") == []
