"""Widths of single groups that bring a plan within the tolerance of its multiply-adds, where no common ratio does.

Multiply-adds are nearly linear in the width of one group while the others stay. One count per group tells how steep;
then a knapsack over all groups finds the widths that are predicted to meet the target and cost least importance. What
it finds is counted, and the next search starts from there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from toolkit.stages.channel_prune.widths import Cut, Scores

WidthPlan = list[Cut]

FEW = 64  # plans that are all counted, the least loss first

BINS = 16  # of the tolerance: how finely predicted multiply-adds are told apart

REACH = 4  # steps that a width may move at once

MOST_ROUNDS = 6

MOST_COUNTED = 6  # plans of one search


def meet(
    miss: Callable[[WidthPlan], float],
    plan: WidthPlan,
    widths: Sequence[Sequence[int]],
    scores: Scores,
    tolerance: float,
) -> WidthPlan:
    """Returns a plan that misses the target by no more than the tolerance, or the nearest one that was found.

    miss: multiply-adds of a plan less the target. widths: for each entry of the plan, what it may keep.
    """
    best = plan
    for one in _nearby(miss, plan, widths, scores, tolerance):
        if abs(miss(one)) < abs(miss(best)):
            best = one
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
        yield from sorted(every, key=lambda one: sum(loss(entry, entry.kept, scores) for entry in one))
        return
    tried = {_kept(plan)}
    for _ in range(MOST_ROUNDS):
        slopes = [_slope(miss, plan, place, own) for place, own in enumerate(widths)]
        found = itertools.islice(_predicted(plan, widths, slopes, scores, miss(plan), tolerance), 4 * MOST_COUNTED)
        fresh = [one for one in found if _kept(one) not in tried][:MOST_COUNTED]
        if not fresh:
            return
        tried |= {_kept(one) for one in fresh}
        yield from fresh
        plan = min(fresh, key=lambda one: abs(miss(one)))


def loss(entry: Cut, kept: int, scores: Scores) -> float:
    """Importance of the units that go, as a share of the group's; of the channels of heads, over all heads."""
    over = 0 if entry.kind == "head_dim" else 1
    units = scores[entry.group.name].double().sum(over).abs().sort(descending=True).values
    return float(units[kept:].sum() / units.sum().clamp(min=1e-30))


def _kept(plan: WidthPlan) -> tuple[int, ...]:
    return tuple(entry.kept for entry in plan)


def _with_widths(plan: WidthPlan, widths: Sequence[int]) -> WidthPlan:
    return [replace(entry, kept=width) for entry, width in zip(plan, widths, strict=True)]


def _slope(miss: Callable[[WidthPlan], float], plan: WidthPlan, place: int, widths: Sequence[int]) -> float:
    """Multiply-adds for one unit more of one group, counted at the width next to its own."""
    now = plan[place].kept
    others = [width for width in widths if width != now]
    if not others:
        return 0.0
    near = min(others, key=lambda width: abs(width - now))
    changed = [replace(entry, kept=near) if at == place else entry for at, entry in enumerate(plan)]
    return (miss(changed) - miss(plan)) / (near - now)


def _predicted(
    plan: WidthPlan,
    widths: Sequence[Sequence[int]],
    slopes: Sequence[float],
    scores: Scores,
    start: float,
    tolerance: float,
) -> Iterator[WidthPlan]:
    """Plans that are predicted to meet the target, the least loss first, then those that come near to it, the nearest
    first; one for each number of multiply-adds."""
    size = tolerance / BINS
    states: dict[int, tuple[float, float, tuple[int, ...]]] = {round(start / size): (0.0, start, ())}
    for entry, own, slope in zip(plan, widths, slopes, strict=True):
        near = sorted(own, key=lambda width, now=entry.kept: abs(width - now))[: 2 * REACH + 1]  # type: ignore[misc]
        costs = {width: loss(entry, width, scores) for width in near}
        new: dict[int, tuple[float, float, tuple[int, ...]]] = {}
        for total, reached, chosen in states.values():
            for width, cost in costs.items():
                there = reached + slope * (width - entry.kept)
                key = round(there / size)
                if key not in new or total + cost < new[key][0]:
                    new[key] = (total + cost, there, (*chosen, width))
        states = new
    order = [
        ((0.0, total) if abs(there) <= tolerance else (abs(there), total), own) for total, there, own in states.values()
    ]
    yield from (_with_widths(plan, chosen) for _, chosen in sorted(order))
