"""Draws the importance of blocks: the score of the model without each single block, round by round."""

from __future__ import annotations

import math
import statistics

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from reports.drawing.style import INK, LIGHT, ORANGE, new_figure
from reports.drawing.words import short_names
from toolkit.stages.detail import BlockScores

MOST_LABELLED = 26  # with more blocks the cells are too narrow for numbers


def draw_importance(detail: BlockScores, title: str) -> Figure:
    """Returns a heat map with blocks across and rounds down; darker means that removing the block hurts more."""
    rounds = len(detail.rounds)
    figure = new_figure(2.4 + 0.5 * max(rounds, 1), title)
    axes = figure.subplots()
    colours = _colours(detail)
    for row, turn in enumerate(detail.rounds):
        for column, block in enumerate(detail.blocks):
            _draw_cell(axes, (column, row), turn.scores.get(block), colours, len(detail.blocks))
        if turn.dropped in detail.blocks:
            corner = (detail.blocks.index(turn.dropped) + 0.05, row + 0.06)
            axes.add_patch(Rectangle(corner, 0.9, 0.88, fill=False, edgecolor=ORANGE, linewidth=3, zorder=3))
    common, labels = short_names(detail.blocks)
    axes.set_xticks([column + 0.5 for column in range(len(labels))], labels)
    if max(map(len, labels), default=0) > 4 or len(labels) > MOST_LABELLED:
        axes.tick_params(axis="x", rotation=60)
    axes.set_yticks([row + 0.5 for row in range(rounds)], [f"round {row + 1}" for row in range(rounds)])
    axes.set(
        xlim=(0, len(labels)), ylim=(rounds, 0), xlabel=f"block, named as in the dense model ({common or 'full name'})"
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(colours, ax=axes, pad=0.01, extend="both")
    bar.set_label("score: darker = matters more")
    marks = [Patch(facecolor="none", edgecolor=ORANGE, linewidth=3, label="dropped in this round")]
    marks += [Patch(facecolor=LIGHT, label="already gone")]
    figure.legend(handles=marks, loc="outside lower left", ncols=2)
    return figure


def direction(detail: BlockScores) -> str:
    """Returns in words what the score is, and whether a high or a low one means that a block matters less."""
    which, other = ("higher", "highest") if detail.higher_is_better else ("lower", "lowest")
    less = f"{which.capitalize()} means that the block matters less, so the {other} is dropped."
    return f"Score: {detail.criterion_words}. {less}"


def _colours(detail: BlockScores) -> ScalarMappable:
    """Returns a colour scale of the scores without outliers, so that one vital block does not make all others pale."""
    scores = sorted(score for turn in detail.rounds for score in turn.scores.values() if score is not None)
    if len(scores) > 4:
        first, _, third = statistics.quantiles(scores, n=4, method="inclusive")
        fence = 1.5 * (third - first)  # Tukey's rule: scores further than this from the quartiles are outliers
        scores = [score for score in scores if first - fence <= score <= third + fence]
    low, high = (scores[0], scores[-1]) if scores else (0.0, 1.0)
    high = high if high > low else low + 1.0
    return ScalarMappable(Normalize(low, high, clip=True), "Blues_r" if detail.higher_is_better else "Blues")


def _draw_cell(axes: Axes, at: tuple[int, int], score: float | None, colours: ScalarMappable, blocks: int) -> None:
    colour = LIGHT if score is None else _colour(colours, score)
    axes.add_patch(Rectangle(at, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    if score is None or blocks > MOST_LABELLED:
        return
    red, green, blue, _ = _colour(colours, score)
    ink = INK if 0.3 * red + 0.59 * green + 0.11 * blue > 0.55 else "white"
    axes.text(at[0] + 0.5, at[1] + 0.5, _digits(score), ha="center", va="center", color=ink, fontsize=9)


def _colour(colours: ScalarMappable, score: float) -> tuple[float, float, float, float]:
    red, green, blue, alpha = colours.to_rgba(np.array([score]))[0]
    return float(red), float(green), float(blue), float(alpha)


def _digits(score: float) -> str:
    """Returns a score in at most five characters."""
    size = abs(score)
    if not math.isfinite(score) or size >= 1000 or 0 < size < 0.001:
        return f"{score:.0e}"
    return f"{score:.0f}" if size >= 100 else f"{score:.1f}" if size >= 10 else _small(score)


def _small(score: float) -> str:
    """Returns a score below 10, with four decimals below 1 (`.1563`): losses often differ only in the fourth."""
    return f"{score:.3f}" if abs(score) >= 1 else f"{score:.4f}".replace("0.", ".", 1)
