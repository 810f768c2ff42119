"""Draws what the convolutions of a model repeat: one row per layer, one panel per figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.drawing.style import BLUE, GREY, ORANGE, light_grid, new_figure
from reports.drawing.words import short_names
from toolkit.redundancy.report import KeptShare, KeptSteps, LayerRedundancy, RedundancyReport

LEAST = -0.15  # R^2 below this is drawn at the edge, as an arrow

Pair = tuple[float, float]  # R^2 of the simple way and of the fitted one


@dataclass(frozen=True)
class _Panel:
    """Is one panel of R^2: its title, its colour, and the figures of a layer, None where it has none."""

    title: str
    colour: str
    of: Callable[[LayerRedundancy], Pair | None]


def draw_redundancy(report: RedundancyReport) -> Figure:
    """Returns a figure of correlations, and of what kept channels and steps explain of the others; all held-out."""
    figure = new_figure(2.1 + 0.27 * len(report.layers), "Redundancy of each convolution, on held-out data")
    shown = [
        _Panel("half of the channels", BLUE, lambda layer: _share(layer, 2)),
        _Panel("a quarter of them", BLUE, lambda layer: _share(layer, 4)),
    ]
    if report.has_time:
        shown += [
            _Panel("every 2nd time step", ORANGE, lambda layer: _rate(layer, 2)),
            _Panel("every 4th", ORANGE, lambda layer: _rate(layer, 4)),
        ]
    panels = figure.subplots(1, 1 + len(shown), sharey=True, squeeze=False)[0]
    _draw_correlations(panels[0], report)
    for axes, panel in zip(panels[1:], shown, strict=True):
        _draw_explained(axes, panel, [panel.of(layer) for layer in report.layers])
    common, labels = short_names([layer.name for layer in report.layers])
    panels[0].set_yticks(range(len(labels)), labels)
    panels[0].set_ylim(len(labels) - 0.4, -0.6)
    if common:
        panels[0].set_ylabel(f"layer ({common})")
    figure.legend(handles=_marks(report.has_time), loc="outside lower left", ncols=3)
    return figure


def _share(layer: LayerRedundancy, share: int) -> Pair | None:
    found: Sequence[KeptShare] = layer.channels.explained if layer.channels else ()
    return next(((kept.first, kept.chosen) for kept in found if kept.share == share), None)


def _rate(layer: LayerRedundancy, rate: int) -> Pair | None:
    found: Sequence[KeptSteps] = layer.time.explained if layer.time else ()
    return next(((kept.repeated, kept.rebuilt) for kept in found if kept.rate == rate), None)


def _draw_correlations(axes: Axes, report: RedundancyReport) -> None:
    for row, layer in enumerate(report.layers):
        for found, colour, marker in ((layer.channels, BLUE, "s"), (layer.time, ORANGE, "D")):
            if found is not None and found.correlation is not None:
                axes.plot(found.correlation, row, marker=marker, color=colour, markersize=6)
    _finish(axes, "correlation", "best partner, next step" if report.has_time else "with the best partner")


def _draw_explained(axes: Axes, panel: _Panel, pairs: Sequence[Pair | None]) -> None:
    for row, pair in enumerate(pairs):
        if pair is None:
            continue
        simple, fitted = (max(value, LEAST) for value in pair)
        axes.plot([simple, fitted], [row, row], color=panel.colour, linewidth=2)
        axes.plot(simple, row, marker=_marker(pair[0]), color=GREY, markerfacecolor="white", markersize=7)
        axes.plot(fitted, row, marker=_marker(pair[1]), color=panel.colour, markersize=7)
    _finish(axes, panel.title, "R² of the rest")


def _marker(value: float) -> str:
    return "o" if value >= LEAST else "<"


def _finish(axes: Axes, title: str, words: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(words)
    axes.set_xlim(LEAST - 0.06, 1.06)
    axes.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
    light_grid(axes, "x")


def _marks(has_time: bool) -> list[Line2D]:
    simple = "the first channels" + (", repetition" if has_time else "")
    marks = [
        Line2D([], [], color=BLUE, marker="s", linestyle="", label="a channel and its best partner"),
        _hollow("o", simple),
        Line2D([], [], color=BLUE, marker="o", label="channels chosen by least squares"),
    ]
    if has_time:
        marks.insert(1, Line2D([], [], color=ORANGE, marker="D", linestyle="", label="a time step and the next"))
        marks.append(Line2D([], [], color=ORANGE, marker="o", label="fitted interpolation of steps"))
    marks.append(_hollow("<", f"below {LEAST:g}".replace("-", "−")))
    return marks


def _hollow(marker: str, words: str) -> Line2D:
    return Line2D([], [], color=GREY, marker=marker, markerfacecolor="white", linestyle="", label=words)
