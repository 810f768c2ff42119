"""Writes plans, costs and spreads of a planner's sweep in words."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from reports.comparison.runs import Cost
from reports.drawing.words import FAMILY_WORDS, change, timed_at
from reports.fronts.cells import FrontCell, Fronts
from toolkit.record.plan import Rank, removed_words
from toolkit.stages.channel_prune.settings import Heads

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)")


def cost_axis(cost: Cost) -> str:
    """Returns the title of the axis of a cost, with the unit."""
    share = "share of the dense model’s"
    return f"{cost_name(cost)} ({share})" if cost.timing else f"{cost.words}, {share}"


def cost_name(cost: Cost) -> str:
    """Returns the name of a cost without a unit, for headings and tables."""
    if cost.timing:
        return f"latency, {timed_at(cost.timing)}"
    return "MACs" if cost.key == "macs_ratio" else cost.words


def quality_axis(fronts: Fronts) -> str:
    """Returns the title of the quality axis.

    Quality is shown against the dense model of the same seed, because baselines of different seeds differ more than
    plans of one seed do.
    """
    return f"test {fronts.metric} minus dense, same seed (0.01 = one point)"


def front_title(fronts: Fronts, cost: Cost) -> str:
    """Returns the title of the figure of a cost."""
    return f"Test {fronts.metric} minus dense against {cost_name(cost)}"


def spread(values: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """Returns `mean (least to most)` of values, the mean alone if they are equal, and a dash if there are none."""
    if not values:
        return "–"
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    if max(values) - min(values) < 0.5 * 10**-digits:
        return mean
    return f"{mean} ({min(values):{sign}.{digits}f} to {max(values):{sign}.{digits}f})"


def title(cell: FrontCell) -> str:
    """Returns the name of a cell: family and budget, or the control, and the seed."""
    place = cell.place
    what = f"{FAMILY_WORDS[place.family]}, {place.budget}" if place.family else place.variant
    return f"{what}, seed {place.seed}"


def told(cell: FrontCell, fronts: Fronts) -> list[str]:
    """Returns the lines that the dot of a cell shows: its name, plan, costs and quality."""
    lines = [title(cell)]
    if cell.place.family:
        lines.append(f"dropped blocks: {gone(cell) or 'none'}")
        lines += [f"width {line}" for line in widths(cell.widths)] or ["widths: unchanged"]
    for cost in fronts.costs:
        if cost.timing:
            predicted = f"predicted {cell.predicted[cost.key]:.3f}, " if cost.key in cell.predicted else ""
            lines.append(f"latency, {timed_at(cost.timing)}: {predicted}measured {cell.costs[cost.key]:.3f} of dense")
    macs = f"MACs {cell.costs['macs_ratio']:.3f}, " if "macs_ratio" in cell.costs else ""
    lines.append(f"{macs}parameters {cell.costs['params_ratio']:.3f} of dense")
    quality = f"{cell.quality['test']:.3f} against {cell.dense_quality['test']:.3f}"
    lines.append(f"test {fronts.metric} minus dense: {change(cell.change)} ({quality})")
    return lines


def gone(cell: FrontCell) -> str:
    """Returns the dropped blocks in words, and the bypasses in the places of some."""
    by_rank: dict[Rank | None, list[str]] = {}
    for name in cell.dropped:
        by_rank.setdefault(cell.bypassed.get(name), []).append(name)
    plain = by_rank.pop(None, [])
    replaced = [f"{together(names)} {removed_words(rank)}" for rank, names in by_rank.items()]
    return "; ".join([*([together(plain)] if plain else []), *replaced])


def widths(cut: Mapping[str, int | Heads]) -> list[str]:
    """Returns one line for each width, such as `64: blocks.*.mlp.fc1 with * = 0–3, 7`.

    cut: the width of every group that is cut.
    """
    by_width: dict[str, list[str]] = {}
    for name, width in cut.items():
        by_width.setdefault(_width(width), []).append(name)
    return [f"{width}: {together(names)}" for width, names in by_width.items()]


def together(names: Iterable[str]) -> str:
    """Returns names with those that differ only in their numbers joined, such as `blocks.* with * = 0–3, 7`."""
    shapes: dict[str, list[str]] = {}
    for name in names:
        shapes.setdefault(_INDEX.sub("*", name), []).append(name)
    return "; ".join(members[0] if len(members) == 1 else _joint(shape, members) for shape, members in shapes.items())


def _joint(shape: str, members: Sequence[str]) -> str:
    indices = sorted(tuple(map(int, _INDEX.findall(name))) for name in members)
    if len(indices[0]) == 1:
        return f"{shape} with * = {_ranges([index[0] for index in indices])}"
    return f"{shape} with * = {', '.join('.'.join(map(str, index)) for index in indices)}"


def _ranges(numbers: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _width(width: int | Heads) -> str:
    if isinstance(width, int):
        return str(width)
    return f"{width.heads} head{'s' if width.heads > 1 else ''}" + (f" × {width.head_dim}" if width.head_dim else "")
