"""Draws how far the test metric of each variant of a sweep is from the dense model's, seed by seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.drawing.style import BLUE, INK, ORANGE, light_grid, new_figure
from reports.sweep.rows import Row
from toolkit.base.words import plain


def draw_sweep(name: str, rows: Sequence[Row]) -> Figure:
    """Returns a figure with a line for each variant and stage, a dot for each seed and a bar for the mean."""
    figure = new_figure(1.6 + 0.32 * len(rows), f"{plain(name, 40)}: test metric minus that of the dense model")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        mean = statistics.mean(row.change)
        axes.plot(row.change, [place] * len(row.change), linestyle="", marker="o", color=BLUE, alpha=0.6)
        axes.plot([mean, mean], [place - 0.32, place + 0.32], color=ORANGE, linewidth=3)
    axes.axvline(0.0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("difference in the metric, same seed")
    light_grid(axes, "x")
    marks = [
        Line2D([], [], linestyle="", marker="o", color=BLUE, alpha=0.6, label="one seed"),
        Line2D([], [], color=ORANGE, linewidth=3, label="mean"),
        Line2D([], [], color=INK, linewidth=1, label="dense"),
    ]
    figure.legend(handles=marks, loc="outside lower left", ncols=3)
    return figure


def _label(row: Row) -> str:
    blocks = "/".join(dict.fromkeys(str(count) for count in row.blocks))
    return f"{plain(row.variant, 30)}, {blocks} blocks" if blocks else plain(row.variant, 30)
