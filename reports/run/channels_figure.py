"""Draws the channels kept in each layer, with one panel for each kind of channel."""

from __future__ import annotations

from collections import Counter

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.drawing.style import BLUE, INK, LIGHT, SKY, light_grid, new_figure
from reports.drawing.words import short_names
from toolkit.base.words import plain
from toolkit.stages.detail import GroupWidth, KeptChannels

MOST_LABELLED, MOST_WORDY = 30, 14  # most layers in a panel for labels such as "64", and such as "64 of 256"


def draw_channels(detail: KeptChannels, title: str) -> Figure:
    """Returns a figure of the channels that a stage kept."""
    kinds = list(dict.fromkeys(group.kind for group in detail.groups))
    figure = new_figure(1.0 + 2.3 * max(len(kinds), 1), title)
    panels = figure.subplots(max(len(kinds), 1), 1, squeeze=False).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        _draw_kind(axes, [group for group in detail.groups if group.kind == kind])
        axes.set_title(plain(detail.kind_words.get(kind, kind), 50), loc="left")
    marks: list[Patch | Line2D] = [
        Patch(facecolor=LIGHT, label="original"),
        Patch(facecolor=BLUE, label="kept (number above)"),
        Line2D([], [], color=INK, linewidth=2, label="asked for, before rounding"),
    ]
    if any(group.before not in (None, group.original) for group in detail.groups):
        marks.insert(1, Patch(facecolor=SKY, label="left by earlier stages"))
    figure.legend(handles=marks, loc="outside lower left", ncols=4)
    return figure


def kept_by_kind(detail: KeptChannels) -> list[tuple[str, int, int]]:
    """Returns (kind in words, channels kept, channels of the unmodified layers) for each kind of channel."""
    kept, original = Counter[str](), Counter[str]()
    for group in detail.groups:
        kept[group.kind] += group.kept
        original[group.kind] += group.original
    return [(detail.kind_words.get(kind, kind), kept[kind], original[kind]) for kind in original]


def _draw_kind(axes: Axes, groups: list[GroupWidth]) -> None:
    places = range(len(groups))
    axes.bar(places, [group.original for group in groups], color=LIGHT, width=0.8)
    entered = [group.original if group.before is None else group.before for group in groups]
    if entered != [group.original for group in groups]:
        axes.bar(places, entered, color=SKY, width=0.8)
    axes.bar(places, [group.kept for group in groups], color=BLUE, width=0.56)
    for place, group in enumerate(groups):
        if group.asked is not None:
            axes.plot([place - 0.4, place + 0.4], [group.asked] * 2, color=INK, linewidth=2)
        if len(groups) <= MOST_LABELLED:
            _label(axes, place, group, wordy=len(groups) <= MOST_WORDY)
    common, labels = short_names([group.name for group in groups])
    axes.set_xticks(places, labels)
    if max(map(len, labels), default=0) > 5 or len(labels) > MOST_LABELLED:
        axes.tick_params(axis="x", rotation=60)
    axes.set_xlabel(f"layer ({common})" if common else "layer")
    axes.set_ylabel("number")
    axes.set_ylim(0, 1.16 * max(group.original for group in groups))
    axes.set_xlim(-0.6, max(len(groups), 8) - 0.4)  # a few bars stay narrow
    light_grid(axes, "y")


def _label(axes: Axes, place: int, group: GroupWidth, wordy: bool) -> None:
    text = f"{group.kept} of {group.original}" if wordy else str(group.kept)
    height = max(group.original, group.kept)
    axes.annotate(text, (place, height), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=9, color=BLUE)
