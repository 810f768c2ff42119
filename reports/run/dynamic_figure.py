"""Draws how the work of a model spreads over inputs, and which options its dynamic layers take."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.drawing.style import BLUE, INK, ORANGE, light_grid, new_figure
from toolkit.measure.counted import InputMacs
from toolkit.stages.detail import DynamicLayer

ROW_IN = 0.32  # the height of a layer's row, in inches

MOST_GROUPS = 24  # more are not drawn

SMALLEST_WRITTEN = 0.12  # the smallest share that is named in its bar

OPTIONS_CAPTION = (
    "Each bar is a layer. Its parts are the options, by the share of the calibration examples that take them; a "
    "darker part computes more. “2 x 16” computes every 2nd time step and 16 channels; cheap linear maps rebuild the "
    "rest."
)


def draw_input_macs(spread: InputMacs, dense: int, title: str) -> Figure:
    """Returns a histogram of the multiply-adds of single examples, as shares of the dense model's.

    A second panel gives the mean of each group of examples, where the task tells groups.
    """
    if not 1 < len(spread.by_group) <= MOST_GROUPS:
        figure = new_figure(3.2, title)
        _draw_histogram(figure.subplots(), spread, dense)
        return figure
    figure = new_figure(max(3.2, 1.2 + ROW_IN * len(spread.by_group)), title)
    histogram, groups = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_histogram(histogram, spread, dense)
    shares = [mean / dense for mean in spread.by_group.values()]
    groups.barh(range(len(shares)), shares, color=BLUE)
    groups.bar_label(groups.containers[0], fmt="%.3f", padding=3)
    groups.set_yticks(range(len(shares)), list(spread.by_group))
    groups.set_ylim(len(shares) - 0.5, -0.5)
    groups.set_xlim(0, 1.15 * max(*shares, 0.01))
    groups.set_xlabel("mean of each group of examples")
    return figure


def _draw_histogram(axes: Axes, spread: InputMacs, dense: int) -> None:
    edges = [edge / dense for edge in spread.edges]
    widths = [right - left for left, right in pairwise(edges)]
    if max(edges) - min(edges) < 1e-3:  # all examples take the same: a bar that can be seen
        edges, widths = [edge - 0.005 for edge in edges], [0.01] * len(widths)
    axes.bar(edges[:-1], spread.counts, width=widths, align="edge", color=BLUE)
    axes.axvline(spread.mean / dense, color=ORANGE, label=f"mean: {spread.mean / dense:.3f}")
    axes.axvline(1.0, linestyle=(0, (5, 3)), color=INK, label="dense: 1")
    axes.set_xlim(left=0)
    axes.set_xlabel("MACs of one example, as a share of the dense model's")
    axes.set_ylabel("examples")
    axes.legend(loc="upper left")
    light_grid(axes, "y")


def input_macs_caption(spread: InputMacs, dense: int) -> str:
    """Returns mean and spread in words."""
    words = (
        f"{spread.num_examples} examples take {spread.mean / dense:.3f} of the dense MACs on average; the tenth "
        f"and the ninetieth percentile are {spread.p10 / dense:.3f} and {spread.p90 / dense:.3f}, the standard "
        f"deviation is {spread.deviation / dense:.3f}. Gates and cheap maps are counted."
    )
    return f"{words} The work hardly depends on the input." if spread.deviation < 0.01 * spread.mean else words


def draw_options(layers: Sequence[DynamicLayer], title: str) -> Figure:
    """Returns one bar per layer, whose parts are the options that it takes."""
    figure = new_figure(1.2 + ROW_IN * len(layers), title)
    axes = figure.subplots()
    for row, layer in enumerate(layers):
        _draw_layer(axes, row, layer)
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the examples")
    return figure


def _draw_layer(axes: Axes, row: int, layer: DynamicLayer) -> None:
    only = f"{layer.steps[0]} x {layer.channels[0]}"
    shares = layer.shares or {only: 1.0}
    full = max(layer.macs.values(), default=1)
    left = 0.0
    for option, share in sorted(shares.items(), key=lambda pair: -layer.macs.get(pair[0], 0)):
        if share <= 0.0:
            continue
        work = layer.macs.get(option, full) / full
        axes.barh(row, share, left=left, height=0.8, color=BLUE, alpha=0.2 + 0.8 * work, edgecolor="white")
        if share >= SMALLEST_WRITTEN:
            colour = "white" if work > 0.4 else INK
            words = f"{option} ({work:.2f} of its MACs)" if share > 0.3 else option
            axes.text(left + share / 2, row, words, ha="center", va="center", color=colour, fontsize=8)
        left += share
