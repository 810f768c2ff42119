"""Makes the interactive plots of a planner's sweep: every measured cell is a dot that shows its recipe."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from reports.comparison.figure import LOOKS
from reports.comparison.runs import Cost
from reports.drawing.scatter import Dot, Line, Look, Scatter
from reports.drawing.style import INK, LIGHT
from reports.drawing.words import FAMILY_WORDS
from reports.fronts.cells import AXES, FrontCell, Fronts
from reports.fronts.figures import control_look
from reports.fronts.scores import WITHIN, Group, Misses, groups
from reports.fronts.words import cost_axis, quality_axis, told
from toolkit.base.words import plain

DENSE_LOOK = Look(INK, "*")


def front_plot(fronts: Fronts, cost: Cost) -> Scatter:
    """Returns a plot with a dot for each cell; a line joins the means over seeds of a family."""
    shown = [group for group in groups(fronts) if group.cells]
    looks = _looks(shown)
    dots = [
        Dot(cell.costs[cost.key], cell.change, looks[_key(group)], tuple(told(cell, fronts)))
        for group in shown
        for cell in group.cells
    ]
    means = [_means([group for group in shown if group.family == axis], cost, looks) for axis in AXES]
    legend = [(look, plain(_words(key), 24)) for key, look in looks.items()]
    return Scatter(
        name=cost.key,
        titles=(cost_axis(cost), quality_axis(fronts)),
        dots=(*dots, _dense(fronts)),
        lines=tuple(line for line in means if line),
        legend=(*legend, (DENSE_LOOK, "dense")),
    )


def prediction_plot(fronts: Fronts, entry: Misses) -> Scatter:
    """Returns a plot of predicted against measured latency.

    On the line, prediction and measurement are equal; within the band, they differ by at most 10 %.
    """
    key = entry.cost.key
    cells = [cell for cell, _ in entry.misses]
    dots = [
        Dot(cell.costs[key], cell.predicted[key], Look(*LOOKS[cell.place.family]), tuple(told(cell, fronts)))
        for cell in cells
        if cell.place.family
    ]
    most = 1.2 * max(max(dot.x, dot.y) for dot in dots)
    band = Line(((0.0, 0.0), (most, (1.0 - WITHIN) * most), (most, (1.0 + WITHIN) * most)), LIGHT, filled=True)
    families = [axis for axis in AXES if any(cell.place.family == axis for cell in cells)]
    return Scatter(
        name=f"predicted-{key}",
        titles=(f"measured {cost_axis(entry.cost)}", "predicted latency (share of the dense model’s)"),
        dots=tuple(dots),
        lines=(band, Line(((0.0, 0.0), (most, most)), INK)),
        legend=tuple((Look(*LOOKS[axis]), FAMILY_WORDS[axis]) for axis in families),
        square=True,
    )


def _key(group: Group) -> str:
    return group.family or group.label


def _looks(shown: Sequence[Group]) -> dict[str, Look]:
    controls = [group for group in shown if group.family is None]
    families: dict[str, Look] = {
        axis: Look(*LOOKS[axis]) for axis in AXES if any(group.family == axis for group in shown)
    }
    return {**families, **{group.label: Look(*control_look(place)) for place, group in enumerate(controls)}}


def _words(key: str) -> str:
    return next((FAMILY_WORDS[axis] for axis in AXES if axis == key), key.replace("_", " "))


def _means(members: Sequence[Group], cost: Cost, looks: dict[str, Look]) -> Line | None:
    def mean(cells: Sequence[FrontCell]) -> tuple[float, float]:
        costs, changes = [cell.costs[cost.key] for cell in cells], [cell.change for cell in cells]
        return statistics.mean(costs), statistics.mean(changes)

    points = sorted(mean(group.cells) for group in members)
    return Line(tuple(points), looks[_key(members[0])].colour) if len(points) > 1 else None


def _dense(fronts: Fronts) -> Dot:
    by_seed = {cell.place.seed: cell.dense_quality["test"] for cell in fronts.cells}
    lines = [f"seed {seed}: test {fronts.metric} {value:.3f}" for seed, value in sorted(by_seed.items())]
    return Dot(1.0, 0.0, DENSE_LOOK, ("dense", *lines))
