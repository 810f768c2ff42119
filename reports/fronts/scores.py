"""Computes what a planner's sweep shows: groups of seeds, hypervolumes, verdicts, and errors of predictions."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reports.comparison.runs import Cost
from reports.fronts.cells import AXES, Axis, FrontCell, Fronts, Gap, Place
from reports.fronts.hypervolume import hypervolume

QUALITY_SLACK: Final = 0.10  # the reference point is this far below the dense model's quality, at a ratio of 1

WITHIN: Final = 0.10  # a prediction counts as met if it differs from the measurement by at most this share

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Group:
    """Holds the cells of all seeds of a family at a budget, or of a control; `label` is the budget or the control."""

    family: Axis | None
    label: str
    cells: tuple[FrontCell, ...]
    infeasible: tuple[Gap, ...]
    not_run: tuple[Gap, ...]


@dataclass(frozen=True)
class Areas:
    """Holds hypervolumes under one cost.

    of_family: the hypervolumes of each family, one for each seed.
    ratios: the hypervolume of the combined family divided by that of the better single axis, one for each seed.
    """

    cost: Cost
    of_family: Mapping[Axis, tuple[float, ...]]
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Verdict:
    """Compares the families at one budget by test quality.

    difference: the mean over seeds of (combined - depth) or of (combined - width), whichever is smaller, which is that
        to the better single axis; None if no seed has a pair.
    differences: for each seed, combined minus the better single axis of that seed. This favours the single axes,
        because the better of two is chosen anew in every seed.
    answer: whether the combined family is at least as good as the better single axis, or why that is not known.
    """

    budget: str
    groups: Mapping[Axis, Group]
    difference: float | None
    differences: tuple[float, ...]
    answer: str


@dataclass(frozen=True)
class Misses:
    """Holds the errors of one predicted latency.

    misses: (cell, predicted / measured - 1) for each plan that has both.
    unmatched: the number of plans that do not have both.
    """

    cost: Cost
    misses: tuple[tuple[FrontCell, float], ...]
    unmatched: int

    @property
    def share_within(self) -> float:
        """Returns the share of the plans whose prediction counts as met."""
        return sum(abs(miss) <= WITHIN for _, miss in self.misses) / len(self.misses)

    @property
    def largest(self) -> tuple[FrontCell, float]:
        """Returns the cell with the largest error, and the error."""
        return max(self.misses, key=lambda entry: abs(entry[1]))


def groups(fronts: Fronts) -> list[Group]:
    """Returns the groups by family, each from the loosest budget to the tightest, and then the controls by name."""
    keys: dict[tuple[Axis | None, str], None] = {}
    for place in fronts.places:
        keys[place.family, place.budget if place.family else place.variant] = None
    return [_group(fronts, family, label) for family, label in sorted(keys, key=_order)]


def budgets(fronts: Fronts) -> list[str]:
    """Returns the budgets from the loosest to the tightest."""
    labels = {group.label for group in groups(fronts) if group.family}
    return sorted(labels, key=lambda budget: (-_value(budget), budget))


def counted(fronts: Fronts) -> dict[int, list[str]]:
    """Returns, by seed, the budgets at which every family is measured or infeasible; only these are compared."""
    places = [cell.place for cell in fronts.cells] + [gap.place for gap in fronts.infeasible]
    settled = {(place.seed, place.family, place.budget) for place in places}
    return {
        seed: [budget for budget in budgets(fronts) if all((seed, axis, budget) in settled for axis in AXES)]
        for seed in seeds(fronts)
    }


def seeds(fronts: Fronts) -> list[int]:
    """Returns the seeds of all cells in rising order."""
    return sorted({place.seed for place in fronts.places})


def reached(fronts: Fronts) -> dict[int, list[str]]:
    """Returns, by seed, the budgets at which every family is measured."""
    places = {(cell.place.seed, cell.place.family, cell.place.budget) for cell in fronts.cells}
    return {
        seed: [budget for budget in settled if all((seed, axis, budget) in places for axis in AXES)]
        for seed, settled in counted(fronts).items()
    }


def areas(fronts: Fronts, over: Mapping[int, Sequence[str]]) -> list[Areas]:
    """Returns the hypervolumes under every cost.

    over: the budgets that count, by seed; a seed without any is left out.
    """
    used = {seed: asked for seed, asked in over.items() if asked}
    results = []
    for cost in fronts.costs:
        rows = [{axis: _area(fronts, axis, seed, used[seed], cost) for axis in AXES} for seed in used]
        single = [max(row["depth"], row["width"]) for row in rows]
        ratios = [row["combined"] / best for row, best in zip(rows, single, strict=True) if best > 0.0]
        results.append(Areas(cost, {axis: tuple(row[axis] for row in rows) for axis in AXES}, tuple(ratios)))
    return results


def verdicts(fronts: Fronts) -> list[Verdict]:
    """Returns one verdict for each budget.

    An infeasible cell is no win and no loss, and a seed with a cell that was not run is not compared.
    """
    used = counted(fronts)
    results = []
    for budget in budgets(fronts):
        at = {axis: _group(fronts, axis, budget) for axis in AXES}
        compared = [seed for seed, settled in used.items() if budget in settled]
        quality: list[dict[Axis, float | None]] = [
            {axis: _quality_of(at[axis], seed) for axis in AXES} for seed in compared
        ]
        pairs = [(row["combined"], _best(row["depth"], row["width"])) for row in quality]
        differences = [both - single for both, single in pairs if both is not None and single is not None]
        difference = _difference(quality)
        results.append(Verdict(budget, at, difference, tuple(differences), _answer(pairs, difference)))
    return results


def misses(fronts: Fronts) -> list[Misses]:
    """Returns the errors of predictions for each latency; controls have no predictions."""
    planned = [cell for cell in fronts.cells if cell.place.family]
    results = []
    for cost in fronts.costs:
        if cost.timing:
            both = [cell for cell in planned if cost.key in cell.predicted]
            errors = tuple((cell, cell.predicted[cost.key] / cell.costs[cost.key] - 1.0) for cell in both)
            results.append(Misses(cost, errors, len(planned) - len(both)))
    return results


def _group(fronts: Fronts, family: Axis | None, label: str) -> Group:
    def belongs(place: Place) -> bool:
        return place.family == family and label == (place.budget if family else place.variant)

    return Group(
        family,
        label,
        cells=tuple(cell for cell in fronts.cells if belongs(cell.place)),
        infeasible=tuple(gap for gap in fronts.infeasible if belongs(gap.place)),
        not_run=tuple(gap for gap in fronts.not_run if belongs(gap.place)),
    )


def _order(key: tuple[Axis | None, str]) -> tuple[int, float, str]:
    family, label = key
    return (AXES.index(family), -_value(label), label) if family else (len(AXES), 0.0, label)


def _value(budget: str) -> float:
    numbers = _NUMBER.findall(budget)
    return float(numbers[-1]) if numbers else 0.0


def _area(fronts: Fronts, axis: Axis, seed: int, asked: Sequence[str], cost: Cost) -> float:
    cells = [cell for cell in fronts.cells if (cell.place.family, cell.place.seed) == (axis, seed)]
    counting = [cell for cell in cells if cell.place.budget in asked]
    points = [(cell.costs[cost.key], cell.change) for cell in counting]
    return hypervolume(points, (1.0, -QUALITY_SLACK))


def _quality_of(group: Group, seed: int) -> float | None:
    return next((cell.quality["test"] for cell in group.cells if cell.place.seed == seed), None)


def _best(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _difference(quality: Sequence[Mapping[Axis, float | None]]) -> float | None:
    """Returns the smaller of the means over seeds of (combined - depth) and of (combined - width).

    The smaller one is the difference to the better axis. A mean is over the seeds that have both qualities; None is
    returned if there are none.
    """
    means = []
    singles: tuple[Axis, ...] = ("depth", "width")
    for axis in singles:
        both = [(row["combined"], row[axis]) for row in quality]
        gains = [combined - single for combined, single in both if combined is not None and single is not None]
        if gains:
            means.append(statistics.mean(gains))
    return min(means, default=None)


def _answer(pairs: Sequence[tuple[float | None, float | None]], difference: float | None) -> str:
    """Returns the answer from the seeds that have both qualities, or the reason where there is no such seed."""
    if difference is not None:
        return "yes" if difference >= 0.0 else "no"
    if not pairs:
        return "not run"
    if any(both is not None for both, _ in pairs):
        return "only feasible family"
    return "combined infeasible" if any(single is not None for _, single in pairs) else "no family feasible"
