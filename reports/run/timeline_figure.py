"""Draws the true segments of one test stream, and those predicted before and after compression."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.drawing.style import BLUE, INK, ORANGE, light_grid, new_figure
from toolkit.base.words import plain
from toolkit.measure.results import Segment, Timeline

SHOWN_SHARE = (
    0.3  # share of the model's highest score below which segments are left out; soft-NMS leaves many faint ones
)

LANE = 0.27  # height of one of the three lanes of a class


def draw_timeline(before: Timeline, after: Timeline) -> Figure:
    """Returns a figure with three lanes for each class: the truth, the dense model and the last step.

    A stronger colour is a higher score.
    """
    lanes = ((before.truth, INK), (_shown(before.predicted), BLUE), (_shown(after.predicted), ORANGE))
    labels = sorted({segment.label for segments, _ in lanes for segment in segments})
    figure = new_figure(1.7 + 0.62 * max(len(labels), 1), "True and predicted segments of one test stream")
    axes = figure.subplots()
    for place, label in enumerate(labels):
        for lane, (segments, colour) in enumerate(lanes):
            of_class = (segment for segment in segments if segment.label == label)
            _draw_lane(axes, of_class, place + (lane - 1) * LANE, colour)
        if place:
            axes.axhline(place - 0.5, color="#BDBDBD", linewidth=0.8)
    axes.set_yticks(range(len(labels)), [plain(label, 20) for label in labels])
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.set_xlim(0, max(before.duration_s, 1e-3))
    axes.set_xlabel("time in the stream, s")
    axes.set_title(f"stream: {plain(before.stream, 60)}", loc="left")
    axes.tick_params(axis="y", length=0)
    light_grid(axes, "x")
    names = ((INK, "truth"), (BLUE, "dense model"), (ORANGE, "after the last stage"))
    figure.legend(handles=[Patch(color=c, label=n) for c, n in names], loc="outside lower left", ncols=3)
    return figure


def _shown(segments: Iterable[Segment]) -> list[Segment]:
    """Returns the segments without the faint ones; the strongest come last, so that they are drawn on top."""
    ranked = sorted(segments, key=lambda segment: segment.score)
    return [segment for segment in ranked if segment.score >= SHOWN_SHARE * ranked[-1].score]


def _draw_lane(axes: Axes, segments: Iterable[Segment], middle: float, colour: str) -> None:
    for segment in segments:
        span = (segment.start_s, segment.end_s - segment.start_s)
        strength = min(max(segment.score, 0.25), 1.0)
        axes.broken_barh([span], (middle - LANE * 0.43, LANE * 0.86), facecolors=(colour, strength), edgecolors="white")
