"""Finds widths of single groups that bring a plan within the tolerance of its multiply-adds.

This is for targets that no common keep ratio meets. Multiply-adds are nearly linear in the width of one group while the
others stay. One count per group gives the slope; then a knapsack over all groups finds the widths that are predicted to
meet the target with the least loss of importance. The resulting plans are counted, and the next search starts from the
best of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from toolkit.stages.channel_prune.widths import Cut, Scores

WidthPlan = list[Cut]

FEW = 64  # if there are no more plans than these, all are counted, least loss first

BINS = 16  # parts of the tolerance by which predicted multiply-adds are told apart

REACH = 4  # steps that a width may move at once

MOST_ROUNDS = 6

MOST_COUNTED = 6  # plans that are counted in one round


def meet(
    miss: Callable[[WidthPlan], float],
    plan: WidthPlan,
    widths: Sequence[Sequence[int]],
    scores: Scores,
    tolerance: float,
) -> WidthPlan:
    """Returns a plan that misses the target by no more than the tolerance, or else the nearest one that was found.

    miss: returns the multiply-adds of a plan minus the target, as shares of the unmodified model's.
    widths: possible widths of each entry of the plan.
    """
    best = plan
    for candidate in _nearby(miss, plan, widths, scores, tolerance):
        if abs(miss(candidate)) < abs(miss(best)):
            best = candidate
        if abs(miss(best)) <= tolerance:
            break
    return best


def _nearby(
    miss: Callable[[WidthPlan], float],
    plan: WidthPlan,
    widths: Sequence[Sequence[int]],
    scores: Scores,
    tolerance: float,
) -> Iterator[WidthPlan]:
    if math.prod(map(len, widths)) <= FEW:
        every = [_with_widths(plan, chosen) for chosen in itertools.product(*widths)]
        yield from sorted(every, key=lambda candidate: sum(loss(entry, entry.kept, scores) for entry in candidate))
        return
    tried = {_kept(plan)}
    for _ in range(MOST_ROUNDS):
        slopes = [_slope(miss, plan, place, possible) for place, possible in enumerate(widths)]
        predicted = itertools.islice(_predicted(plan, widths, slopes, scores, miss(plan), tolerance), 4 * MOST_COUNTED)
        fresh = [candidate for candidate in predicted if _kept(candidate) not in tried][:MOST_COUNTED]
        if not fresh:
            return
        tried |= {_kept(candidate) for candidate in fresh}
        yield from fresh
        plan = min(fresh, key=lambda candidate: abs(miss(candidate)))


def loss(entry: Cut, kept: int, scores: Scores) -> float:
    """Returns the importance of the removed units as a share of that of the group.

    For `head_dim` these are the channels of heads, summed over all heads.
    """
    over = 0 if entry.kind == "head_dim" else 1
    units = scores[entry.group.name].double().sum(over).abs().sort(descending=True).values
    return float(units[kept:].sum() / units.sum().clamp(min=1e-30))


def _kept(plan: WidthPlan) -> tuple[int, ...]:
    return tuple(entry.kept for entry in plan)


def _with_widths(plan: WidthPlan, widths: Sequence[int]) -> WidthPlan:
    return [replace(entry, kept=width) for entry, width in zip(plan, widths, strict=True)]


def _slope(miss: Callable[[WidthPlan], float], plan: WidthPlan, place: int, widths: Sequence[int]) -> float:
    """Returns the multiply-adds of one more unit of a group, counted at the width next to its own."""
    current = plan[place].kept
    others = [width for width in widths if width != current]
    if not others:
        return 0.0
    near = min(others, key=lambda width: abs(width - current))
    changed = [replace(entry, kept=near) if at == place else entry for at, entry in enumerate(plan)]
    return (miss(changed) - miss(plan)) / (near - current)


def _predicted(
    plan: WidthPlan,
    widths: Sequence[Sequence[int]],
    slopes: Sequence[float],
    scores: Scores,
    start: float,
    tolerance: float,
) -> Iterator[WidthPlan]:
    """Yields plans that are predicted to meet the target, least loss first, then the nearest others, nearest first.

    There is one plan for each predicted number of multiply-adds.
    """
    size = tolerance / BINS
    states: dict[int, tuple[float, float, tuple[int, ...]]] = {round(start / size): (0.0, start, ())}
    for entry, possible, slope in zip(plan, widths, slopes, strict=True):
        near = sorted(possible, key=lambda width, now=entry.kept: abs(width - now))[: 2 * REACH + 1]  # type: ignore[misc]
        costs = {width: loss(entry, width, scores) for width in near}
        new: dict[int, tuple[float, float, tuple[int, ...]]] = {}
        for total, reached, chosen in states.values():
            for width, cost in costs.items():
                predicted = reached + slope * (width - entry.kept)
                key = round(predicted / size)
                if key not in new or total + cost < new[key][0]:
                    new[key] = (total + cost, predicted, (*chosen, width))
        states = new
    order = [
        ((0.0, total) if abs(predicted) <= tolerance else (abs(predicted), total), chosen_widths)
        for total, predicted, chosen_widths in states.values()
    ]
    yield from (_with_widths(plan, chosen) for _, chosen in sorted(order))
