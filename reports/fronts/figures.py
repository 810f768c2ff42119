"""Draws the fronts of planned models, as means over seeds with their spread, and predicted against measured latency."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.comparison.figure import LOOKS
from reports.comparison.runs import Cost
from reports.drawing.style import GREY, INK, LIGHT, PURPLE, SKY, light_grid, new_figure
from reports.drawing.words import FAMILY_WORDS
from reports.fronts.cells import AXES, FrontCell, Fronts
from reports.fronts.scores import WITHIN, Group, groups, misses
from reports.fronts.words import cost_axis, front_title, quality_axis
from toolkit.base.words import plain, setting

CONTROL_LOOKS: Final = ((PURPLE, "h"), (GREY, "^"), (SKY, "v"), (INK, "P"))


def control_look(place: int) -> tuple[str, str]:
    """Returns the colour and the marker of the control with this index among all controls."""
    return CONTROL_LOOKS[place % len(CONTROL_LOOKS)]


def draw_plan_fronts(fronts: Fronts, cost: Cost) -> Figure:
    """Returns a figure of every family's budgets: means over seeds, with bars from the least to the most."""
    figure = new_figure(5.6, front_title(fronts, cost))
    axes = figure.subplots()
    shown = [group for group in groups(fronts) if group.cells]
    for axis in AXES:
        members = [group.cells for group in shown if group.family == axis]
        if members:
            _draw(axes, members, cost, LOOKS[axis], FAMILY_WORDS[axis], "-")
    for place, group in enumerate(group for group in shown if group.family is None):
        _draw(axes, [group.cells], cost, control_look(place), _label(group), "")
    _draw_dense(axes)
    axes.margins(x=0.06, y=0.12)
    axes.set(xlabel=cost_axis(cost), ylabel=quality_axis(fronts))
    light_grid(axes, "x")
    light_grid(axes, "y")
    figure.legend(loc="outside right upper", title="mean over seeds,\nbars: least to most", alignment="left")
    return figure


def draw_predictions(fronts: Fronts) -> Figure:
    """Returns a figure with one panel for each latency, and a point for each plan and seed."""
    entries = [entry for entry in misses(fronts) if entry.misses]
    figure = new_figure(5.4, "Predicted against measured latency", width_in=max(6.5, 5.2 * len(entries)))
    panels = figure.subplots(1, len(entries), squeeze=False)[0]
    for axes, entry in zip(panels, entries, strict=True):
        cells, cost = [cell for cell, _ in entry.misses], entry.cost
        measured = [cell.costs[cost.key] for cell in cells]
        predicted = [cell.predicted[cost.key] for cell in cells]
        _draw_diagonal(axes, [*measured, *predicted])
        for axis in AXES:
            members = [index for index, cell in enumerate(cells) if cell.place.family == axis]
            colour, marker = LOOKS[axis]
            axes.plot(
                [measured[index] for index in members], [predicted[index] for index in members],
                linestyle="", color=colour, marker=marker, markersize=8, markeredgecolor="white", alpha=0.85,
                label=FAMILY_WORDS[axis],
            )  # fmt: skip
        axes.set(xlabel=f"measured {cost_axis(cost)}", ylabel="predicted latency (share of the dense model’s)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw(
    axes: Axes, members: Sequence[Sequence[FrontCell]], cost: Cost, look: tuple[str, str], label: str, line: str
) -> None:
    """Draws the means of the cells of every budget, joined by rising cost."""
    pairs = [([cell.costs[cost.key] for cell in cells], [cell.change for cell in cells]) for cells in members]
    pairs.sort(key=lambda pair: statistics.mean(pair[0]))
    costs, changes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    axes.errorbar(
        [statistics.mean(values) for values in costs], [statistics.mean(values) for values in changes],
        xerr=_bars(costs), yerr=_bars(changes), color=look[0], marker=look[1], linestyle=line, linewidth=1.6,
        elinewidth=1.0, capsize=3, markersize=9, markeredgecolor="white", label=label, zorder=4,
    )  # fmt: skip


def _bars(groups_of_values: Sequence[Sequence[float]]) -> list[list[float]]:
    """Returns the distances of the least and of the most from the mean, never below 0 for rounding."""
    means = [statistics.mean(values) for values in groups_of_values]
    down = [max(0.0, mean - min(values)) for mean, values in zip(means, groups_of_values, strict=True)]
    up = [max(0.0, max(values) - mean) for mean, values in zip(means, groups_of_values, strict=True)]
    return [down, up]


def _draw_dense(axes: Axes) -> None:
    axes.axhline(0.0, color=INK, linestyle=(0, (5, 4)), linewidth=1, zorder=2)
    axes.plot([1.0], [0.0], color=INK, marker="*", markersize=16, linestyle="", label="dense", zorder=5)


def _draw_diagonal(axes: Axes, values: Sequence[float]) -> None:
    most = 1.08 * max(values)
    axes.fill_between(
        [0.0, most],
        [0.0, (1 - WITHIN) * most],
        [0.0, (1 + WITHIN) * most],
        color=LIGHT,
        linewidth=0,
        label=f"within {setting(WITHIN)}",
    )
    axes.plot([0.0, most], [0.0, most], color=INK, linewidth=1, label="as predicted")
    axes.set_xlim(0.92 * min(values), most)
    axes.set_ylim(0.92 * min(values), most)
    light_grid(axes, "x")
    light_grid(axes, "y")


def _label(group: Group) -> str:
    return plain(group.label.replace("_", " "))
