"""Draws the loss and the validation metric during fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing.style import BLUE, GREEN, GREY, INK, light_grid, new_figure
from toolkit.stages.recorded import TrainingDetail


def draw_recovery(detail: TrainingDetail, title: str, dense: float | None, before: float | None) -> Figure:
    """Returns a figure with one panel for the loss and one for the metric.

    dense: the validation metric of the dense model, if known.
    before: the validation metric of the model before this stage, if known.
    """
    figure = new_figure(3.6, title)
    left, right = figure.subplots(1, 2, sharex=True)
    losses = [(point.step, point.loss) for point in detail.curve if point.loss is not None]
    values = [(point.step, point.validation) for point in detail.curve if point.validation is not None]
    if detail.start is not None:
        values.insert(0, (0, detail.start.validation))
    _line(left, losses, "training loss")
    _line(right, values, "validation metric")
    for level, style, colour, label in (
        (dense, (0, (5, 3)), INK, "dense"),
        (before, (0, (1, 2)), GREY, "before recovery"),
    ):
        if level is not None:
            right.axhline(level, linestyle=style, color=colour, linewidth=1.5, label=f"{label}: {level:.3f}")
    if values:
        step, best = max(values, key=lambda pair: pair[1])
        label = f"best: {best:.3f} at step {step}"
        right.plot(step, best, marker="*", markersize=14, color=GREEN, linestyle="", label=label)
    if right.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower right", ncols=3)
    return figure


def _line(axes: Axes, points: Sequence[tuple[int, float]], what: str) -> None:
    axes.plot([step for step, _ in points], [value for _, value in points], marker="o", markersize=4, color=BLUE)
    axes.set_title(what if points else f"{what}: not recorded", loc="left")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(what)
    axes.set_xlim(left=0)
    light_grid(axes, "y")
