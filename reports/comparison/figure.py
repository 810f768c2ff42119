"""Draws quality against one cost for several runs, with the Pareto front of each family and of all."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.comparison.pareto import Point, front
from reports.drawing.style import BLUE, GREEN, INK, LIGHT, ORANGE, PURPLE, light_grid, new_figure
from reports.drawing.words import FAMILY_WORDS
from toolkit.base.words import plain
from toolkit.recipe.recipe import Family

LOOKS: dict[Family, tuple[str, str]] = {
    "depth": (BLUE, "o"),
    "width": (ORANGE, "s"),
    "combined": (GREEN, "D"),
    "none": (PURPLE, "h"),
}


def draw_front(dense: Point, runs: Sequence[Sequence[Point]], cost: str, labels: tuple[str, str]) -> Figure:
    """Returns the figure of one cost.

    runs: the steps of each run in order, the last of which is its result.
    labels: the titles of the cost axis and of the quality axis.
    """
    short = [label.partition(" = ")[0] for label in (labels[1].partition(" (")[0], labels[0])]
    figure = new_figure(5.6, " against ".join(short))  # a long title would run into the legend
    axes = figure.subplots()
    finals = [steps[-1] for steps in runs]
    points = [dense, *(point for steps in runs for point in steps)]
    low, high = _limits([point.costs[cost] for point in points])
    axes.set_xlim(low, high)
    _draw_stairs(axes, front([dense, *finals], cost), cost, high, LIGHT, 7.0)
    families = [family for family in LOOKS if any(point.family == family for point in finals)]
    for family in families:
        members = front([dense, *(point for point in finals if point.family == family)], cost)
        _draw_stairs(axes, members, cost, high, LOOKS[family][0], 1.6)
    axes.axhline(dense.quality, color=INK, linestyle=(0, (5, 4)), linewidth=1)
    for number, steps in enumerate(runs, start=1):
        _draw_run(axes, dense, steps, cost, number)
    axes.plot(dense.costs[cost], dense.quality, marker="*", markersize=18, color=INK, zorder=6)
    axes.margins(y=0.12)
    axes.set(xlabel=f"{labels[0]}, ratio to dense", ylabel=labels[1])
    light_grid(axes, "x")
    light_grid(axes, "y")
    figure.legend(handles=_marks(dense, finals, families), loc="outside right upper")
    return figure


def _limits(costs: Sequence[float]) -> tuple[float, float]:
    return max(0.0, min(costs) - 0.08), max(costs) + 0.05


def _draw_stairs(axes: Axes, members: Sequence[Point], cost: str, right: float, colour: str, width: float) -> None:
    """Draws the best quality at or below each cost, from the cheapest member to the right edge."""
    costs = [point.costs[cost] for point in members]
    values = [point.quality for point in members]
    axes.step([*costs, right], [*values, values[-1]], where="post", color=colour, linewidth=width, zorder=2)


def _draw_run(axes: Axes, dense: Point, steps: Sequence[Point], cost: str, number: int) -> None:
    colour, marker = LOOKS[steps[-1].family]
    path = [dense, *steps]
    places = ([point.costs[cost] for point in path], [point.quality for point in path])
    axes.plot(*places, color=colour, linewidth=0.9, linestyle=(0, (1, 2)), zorder=3)
    axes.plot(
        places[0][1:-1], places[1][1:-1], linestyle="", color=colour, marker=marker, markersize=5,
        markerfacecolor="white", zorder=4,
    )  # fmt: skip
    axes.plot(
        places[0][-1], places[1][-1], marker=marker, color=colour, markersize=15, markeredgecolor="white", zorder=5
    )
    axes.text(
        places[0][-1], places[1][-1], str(number), color="white", ha="center", va="center", fontsize=9,
        fontweight="bold", zorder=7,
    )  # fmt: skip


def _marks(dense: Point, finals: Sequence[Point], families: Sequence[Family]) -> list[Line2D]:
    marks = [
        Line2D([], [], color=INK, marker="*", markersize=12, linestyle=(0, (5, 4)), label=f"dense: {dense.quality:.3f}")
    ]
    for number, point in enumerate(finals, start=1):
        colour, marker = LOOKS[point.family]
        label = f"{number}  {plain(point.run, 30)}: {point.quality:.3f}"
        marks.append(Line2D([], [], color=colour, marker=marker, markersize=10, linestyle="", label=label))
    way = Line2D([], [], color=INK, linestyle=(0, (1, 2)), marker="o", markersize=5, markerfacecolor="white")
    way.set_label("stages on the way")
    marks.append(way)
    for family in families:
        marks.append(Line2D([], [], color=LOOKS[family][0], label=f"Pareto front, {FAMILY_WORDS[family]}"))
    marks.append(Line2D([], [], color=LIGHT, linewidth=7, label="Pareto front of all"))
    return marks
