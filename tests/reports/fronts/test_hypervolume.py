"""Hypervolume: hand-computed areas, and what holds for any set of points."""

from __future__ import annotations

import random

import pytest

from reports.fronts.hypervolume import hypervolume

REFERENCE = (1.0, 0.5)


def some_points(seed: int) -> list[tuple[float, float]]:
    random_ = random.Random(seed)
    return [(random_.uniform(0.1, 1.2), random_.uniform(0.4, 0.9)) for _ in range(random_.randint(1, 12))]


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([], 0.0),
        ([(0.5, 0.7)], 0.5 * 0.2),
        ([(0.25, 0.6), (0.5, 0.7)], 0.75 * 0.1 + 0.5 * 0.1),
        ([(0.5, 0.7), (0.5, 0.6)], 0.5 * 0.2),  # at one cost the better counts
        ([(0.25, 0.7), (0.5, 0.7)], 0.75 * 0.2),  # at one quality the cheaper
        ([(1.0, 0.9)], 0.0),  # the dense model itself
        ([(1.3, 0.9), (0.2, 0.5), (0.1, 0.3)], 0.0),  # beyond the reference
    ],
)
def test_by_hand(points: list[tuple[float, float]], area: float) -> None:
    assert hypervolume(points, REFERENCE) == pytest.approx(area)


@pytest.mark.parametrize("seed", range(30))
def test_order_does_not_matter_and_dominated_points_add_nothing(seed: int) -> None:
    points = some_points(seed)
    area = hypervolume(points, REFERENCE)
    shuffled = random.Random(seed + 1).sample(points, len(points))
    assert hypervolume(shuffled, REFERENCE) == area
    cost, quality = points[0]
    assert hypervolume([*points, (cost + 0.01, quality - 0.01), points[0]], REFERENCE) == pytest.approx(area)


@pytest.mark.parametrize("seed", range(30))
def test_never_less_with_more_and_more_with_better(seed: int) -> None:
    points = some_points(seed)
    areas = [hypervolume(points[:count], REFERENCE) for count in range(len(points) + 1)]
    assert areas == sorted(areas)
    assert hypervolume([*points, (0.05, 0.95)], REFERENCE) > areas[-1]  # beats them all


@pytest.mark.parametrize("seed", range(10))
def test_as_counted_on_a_grid(seed: int) -> None:
    points = [(round(cost, 1), round(quality, 1)) for cost, quality in some_points(seed)]
    middles = [(column / 10 + 0.05, row / 10 + 0.05) for column in range(10) for row in range(5, 10)]
    inside = [any(cost < x and quality > y for cost, quality in points) for x, y in middles]
    assert hypervolume(points, REFERENCE) == pytest.approx(sum(inside) * 0.01)
