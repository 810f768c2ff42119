"""Draws the error of each repaired layer before and after its repair, on calibration and on held-out data."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reports.drawing.style import BLUE, GREY, ORANGE, light_grid, new_figure
from toolkit.base.words import plain
from toolkit.stages.detail import Change, RepairErrors

LOG_FROM = 30.0  # the axis is logarithmic if the largest error is more than this many times the smallest


def draw_repairs(repairs: Sequence[tuple[str, RepairErrors]], title: str) -> Figure:
    """Returns a figure of the repairs, each with its label, from top to bottom."""
    figure = new_figure(1.7 + 0.3 * len(repairs), title)
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    calibration = [repair.calibration_error for _, repair in repairs]
    holdout = [repair.holdout_error for _, repair in repairs]
    _scale(panels[0], [*calibration, *holdout])
    _draw_panel(panels[0], calibration, "calibration data (fitted on)")
    _draw_panel(panels[1], holdout, "held-out data")
    panels[0].set_yticks(range(len(repairs)), [plain(label, 44) for label, _ in repairs])
    panels[0].set_ylim(len(repairs) - 0.4, -0.6)
    marks = [
        Line2D([], [], color=GREY, marker="o", markerfacecolor="white", linestyle="", label="without repair"),
        Line2D([], [], color=BLUE, marker="o", label="with repair: lower"),
    ]
    if any(change.after > change.before for change in (*calibration, *holdout) if change):
        marks.append(Line2D([], [], color=ORANGE, marker="o", label="with repair: higher"))
    figure.legend(handles=marks, loc="outside lower left", ncols=3)
    return figure


def _scale(axes: Axes, changes: Sequence[Change | None]) -> None:
    """Sets the scale of both panels, which share it."""
    errors = [error for change in changes if change for error in (change.before, change.after)]
    if errors and min(errors) > 0 and max(errors) / min(errors) > LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # mathtext is off in figures
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(0.8 * min(errors), 1.25 * max(errors))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(0, 1.08 * max(errors, default=1.0) or 1.0)


def _draw_panel(axes: Axes, changes: Sequence[Change | None], title: str) -> None:
    for row, change in enumerate(changes):
        if change is None:
            continue
        colour = ORANGE if change.after > change.before else BLUE
        axes.plot([change.before, change.after], [row, row], color=colour, linewidth=2)
        axes.plot(change.before, row, marker="o", color=GREY, markerfacecolor="white", markersize=7)
        axes.plot(change.after, row, marker="o", color=colour, markersize=7)
    axes.set_title(title if any(changes) else f"{title}: not recorded", loc="left")
    axes.set_xlabel("relative squared error")
    light_grid(axes, "x")
