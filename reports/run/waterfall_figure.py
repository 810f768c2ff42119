"""Draws how much each stage changed multiply-adds, latency and quality, as a waterfall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.drawing.style import BLUE, GREY, INK, LIGHT, ORANGE, light_grid, new_figure
from reports.drawing.words import MACS_AXIS, count, milliseconds, step_names, timed_at
from toolkit.base.words import plain
from toolkit.measure.results import Measurement, MeasurementKey
from toolkit.record.run import StepRecord

COLUMNS = 3

LATENCY_NOISE = 0.02  # a smaller change, as a share of the dense model's latency, counts as none

SMALLEST_SPAN = 0.1  # least length of an axis as a share of its highest value, so that noise does not fill the axis


@dataclass(frozen=True)
class Track:
    """Holds one quantity after each step.

    levels: the values of the quantity; None where a step lacks it.
    notes: these values in words.
    cost: whether lower is better.
    noise: a change of at most this size counts as none.
    """

    title: str
    axis: str
    levels: tuple[float | None, ...]
    notes: tuple[str, ...]
    cost: bool
    noise: float = 0.0


def tracks_of(steps: Sequence[StepRecord]) -> list[Track]:
    """Returns the quantities to draw: multiply-adds, every latency, and quality on every split."""
    measurements = [step.measurement for step in steps]
    latency = [_latency_track(measurements, key) for key in measurements[0].latency_keys]
    splits = [quality.split for quality in measurements[0].quality]
    macs = [] if measurements[0].macs.is_partial else [_macs_track(measurements)]
    return [*macs, *latency, *(_quality_track(measurements, split) for split in splits)]


def draw_waterfall(steps: Sequence[StepRecord]) -> Figure:
    """Returns a figure with one panel for each quantity, and one row for each step."""
    tracks, names = tracks_of(steps), [*step_names(steps), "result"]
    rows = math.ceil(len(tracks) / COLUMNS)
    figure = new_figure(0.9 + rows * (1.1 + 0.36 * len(names)), "What each stage changed")
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flatten()
    for axes, track in zip(panels, tracks, strict=False):
        _draw_track(axes, track)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
    for axes in panels[len(tracks) :]:
        axes.set_axis_off()
    marks = [Patch(color=GREY, label="dense, result, no change"), Patch(color=BLUE, label="change for the better")]
    marks += [Patch(color=ORANGE, label="change for the worse")]
    figure.legend(handles=marks, loc="outside lower left", ncols=3)
    return figure


def _macs_track(measurements: Sequence[Measurement]) -> Track:
    levels = tuple(measurement.macs.ratio_to(measurements[0].macs) for measurement in measurements)
    notes = tuple(
        "" if level is None else f"{level:.2f} ({count(m.macs.total)})"
        for level, m in zip(levels, measurements, strict=True)
    )
    return Track("MACs, share of dense", MACS_AXIS, levels, notes, cost=True)


def _latency_track(measurements: Sequence[Measurement], key: MeasurementKey) -> Track:
    entries = [measurement.latency_at(key) for measurement in measurements]
    levels = tuple(entry.ratio if entry else None for entry in entries)
    notes = tuple(f"{entry.ratio:.2f} ({milliseconds(entry.median_s)} ms)" if entry else "" for entry in entries)
    return Track(
        f"latency, {timed_at(key)}", "ratio to dense, timed in turns", levels, notes, cost=True, noise=LATENCY_NOISE
    )


def _quality_track(measurements: Sequence[Measurement], split: str) -> Track:
    entries = [measurement.quality_on(split) for measurement in measurements]
    levels = tuple(entry.value if entry else None for entry in entries)
    notes = tuple("" if level is None else f"{level:.3f}" for level in levels)
    metric = plain(entries[0].metric) if entries[0] else ""
    return Track(f"{metric}, {split} split", "zoomed: the axis does not start at 0", levels, notes, cost=False)


def _draw_track(axes: Axes, track: Track) -> None:
    known = [level for level in track.levels if level is not None]
    span = max(max(known) - min(known), SMALLEST_SPAN * abs(max(known)), 1e-9)
    left = 0.0 if track.cost else min(known) - 0.15 * span
    right = max(known)
    axes.set_xlim(left, right + 0.6 * (right - left))  # the numbers stand to the right of all bars
    axes.set_xticks(
        [tick for tick in MaxNLocator(4 if track.cost else 3).tick_values(left, right) if left <= tick <= right * 1.001]
    )
    axes.axvline(known[0], color=INK, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    previous = known[0]
    for row, level in enumerate((*track.levels, known[-1])):
        if level is None:
            continue
        total = row in (0, len(track.levels))
        start = left if total else previous
        better = (level < previous) == track.cost
        colour = GREY if total or abs(level - previous) <= track.noise else BLUE if better else ORANGE
        if track.cost or not total:  # a whole bar on a zoomed axis would lie about its length
            axes.barh(row, level - start, left=start, height=0.62, color=colour)
        axes.plot([level, level], [row - 0.36, row + 0.36], color=colour, linewidth=3, solid_capstyle="butt")
        if row:
            axes.plot([previous, previous], [row - 0.64, row - 0.36], color=GREY, linewidth=0.8)
        note = (*track.notes, track.notes[-1])[row]
        axes.annotate(note, (right, row), xytext=(8, 0), textcoords="offset points", va="center")
        previous = level
    axes.set_title(track.title, loc="left")
    axes.set_xlabel(track.axis)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_color(LIGHT)
    light_grid(axes, "x")
