"""Computes comparisons and hypervolumes from the kept cells of the CIFAR-10 benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reports.fronts.hypervolume import hypervolume
from toolkit.benchmarks.cifar10.cells import FAMILY_METHODS, CellKey, ImageCell
from toolkit.benchmarks.cifar10.paired import PairedDifference, paired_difference

SLACK = 0.10  # the reference point of a hypervolume is this far below the dense accuracy, at all multiply-adds

Cells = Mapping[CellKey, ImageCell]


@dataclass(frozen=True)
class Comparison:
    """Compares plans that cut depth and width (the family `combined`) with the better single axis at one budget.

    what: the network, or the number of networks of a mean.
    better: the name of the better axis, or the names for all networks of a mean.
    difference: the accuracy of the combined plan minus that of the better axis.
    cuts_both: whether the combined plan both drops blocks and cuts widths, or for how many networks of a mean.
    """

    what: str
    resource: str
    budget: float
    draw: int
    better: str
    difference: PairedDifference
    cuts_both: str


def models(cells: Sequence[ImageCell]) -> dict[CellKey, ImageCell]:
    """Returns the cells that have a model."""
    return {cell.key: cell for cell in cells if cell.accuracy is not None}


def untrained(cells: Cells, depth: int | None = None, draw: int = 0) -> list[ImageCell]:
    """Returns the models without fine-tuning, the dense one included, of one network or of all."""
    return [cell for key, cell in cells.items() if key.seed is None and key.draw == draw and depth in (None, key.depth)]


def comparisons(cells: Cells) -> list[Comparison]:
    """Returns a comparison for each network, budget and draw that has combined and an axis, then means over networks.

    The better axis is the one of higher test accuracy, which favours the single axes. Where several networks have a
    comparison at a budget, their mean is returned too.
    """
    by_budget: dict[tuple[str, float, int], list[tuple[Comparison, NDArray[np.float64]]]] = {}
    for key, cell in sorted(cells.items(), key=lambda entry: _order(entry[0])):
        if key.method == "combined" and key.seed is None:
            compared = _comparison(cells, cell)
            if compared is not None:
                by_budget.setdefault((key.resource, key.budget, key.draw), []).append(compared)
    singles = [comparison for group in by_budget.values() for comparison, _ in group]
    means = [_mean(group) for group in by_budget.values() if len(group) > 1]
    return [*singles, *means]


def hypervolume_ratios(cells: Cells, depth: int, draw: int = 0) -> float | None:
    """Returns the hypervolume of combined plans divided by that of the better axis; None if the axes have no area.

    Only budgets of multiply-adds at which all three families have a model count.
    """
    of_net = [cell for cell in untrained(cells, depth, draw) if cell.resource == "macs"]
    by_budget: dict[float, list[ImageCell]] = {}
    for cell in (cell for cell in of_net if cell.method in FAMILY_METHODS):
        by_budget.setdefault(cell.budget, []).append(cell)
    complete = [cell for group in by_budget.values() if len(group) == len(FAMILY_METHODS) for cell in group]
    dense = cells.get(CellKey(depth, "dense", draw=draw))
    if dense is None or dense.accuracy is None:
        return None
    reference = (1.0, dense.accuracy - SLACK)
    areas = {
        method: hypervolume(
            [(cell.macs_ratio, cell.accuracy or 0.0) for cell in complete if cell.method == method], reference
        )
        for method in FAMILY_METHODS
    }
    single = max(areas["depth"], areas["width"])
    return areas["combined"] / single if single else None


def over_seeds(cells: Cells, depth: int, method: str, budget: float) -> list[ImageCell]:
    """Returns the fine-tuned models of a method at a budget, one for each seed; the dense model has the budget 1."""
    return [
        cell
        for key, cell in sorted(cells.items(), key=lambda entry: _order(entry[0]))
        if (key.depth, key.method, key.budget, key.draw) == (depth, method, budget, 0) and key.seed is not None
    ]


def spread(values: Sequence[float]) -> str:
    """Returns `mean (least to most)` in per cent, the mean alone for one value, and a dash for none."""
    shown = [100 * value for value in values]
    if not shown:
        return "–"
    mean = f"{statistics.mean(shown):.2f}"
    return mean if len(shown) == 1 else f"{mean} ({min(shown):.2f} to {max(shown):.2f})"


def _order(key: CellKey) -> tuple[int, str, float, str, int, int]:
    seed = -1 if key.seed is None else key.seed
    return key.draw, key.resource, -key.budget, f"{key.depth:03d}{key.method}", seed, key.depth


def _comparison(cells: Cells, combined: ImageCell) -> tuple[Comparison, NDArray[np.float64]] | None:
    key = combined.key
    keys = [CellKey(key.depth, axis, key.resource, key.budget, None, key.draw) for axis in ("depth", "width")]
    axes = [cells[single] for single in keys if single in cells]
    if not axes:
        return None
    better = max(axes, key=lambda cell: cell.accuracy or 0.0)
    values = combined.right.astype(np.float64) - better.right
    comparison = Comparison(
        f"ResNet-{key.depth}",
        key.resource,
        key.budget,
        key.draw,
        better.method,
        paired_difference(values),
        "yes" if combined.cuts_both else "no",
    )
    return comparison, values


def _mean(group: Sequence[tuple[Comparison, NDArray[np.float64]]]) -> Comparison:
    """Returns the mean over networks, taken for each image first, because all networks are tested on the same ones."""
    first = group[0][0]
    both = sum(comparison.cuts_both == "yes" for comparison, _ in group)
    return Comparison(
        f"mean of {len(group)} networks",
        first.resource,
        first.budget,
        first.draw,
        ", ".join(comparison.better for comparison, _ in group),
        paired_difference(np.mean([values for _, values in group], axis=0)),
        f"{both} of {len(group)}",
    )
