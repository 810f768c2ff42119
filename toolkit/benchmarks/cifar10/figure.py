"""Draws accuracy against multiply-adds for the CIFAR-10 benchmark, with one panel for each network."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.comparison.figure import LOOKS
from reports.drawing.style import GREY, INK, PURPLE, SKY, light_grid, new_figure
from reports.drawing.words import FAMILY_WORDS
from reports.fronts.cells import AXES
from toolkit.benchmarks.cifar10.cells import CONTROLS, DENSE, CellKey, ImageCell
from toolkit.benchmarks.cifar10.scores import Cells, untrained

CONTROL_LOOKS = {
    "plain_drop": (SKY, "v"),
    "plain_width": (SKY, "^"),
    "torch_pruning": (PURPLE, "P"),
    "torch_pruning_global": (PURPLE, "X"),
    "torch_pruning_taylor": (PURPLE, "d"),
    "toast": (GREY, "h"),
    "replace_me": (GREY, "v"),
    "grail": (GREY, "^"),
}


def draw_accuracy(cells: Cells) -> Figure:
    """Returns a figure of the models without fine-tuning of the first draw; lines join the budgets of a method."""
    depths = sorted({key.depth for key in cells})
    figure = new_figure(5.4, "Accuracy against multiply-adds, no gradient step", width_in=max(7.0, 5.0 * len(depths)))
    panels = figure.subplots(1, len(depths), squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        _draw(axes, cells, depth)
    entries = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3 + len(depths))
    return figure


def _draw(axes: Axes, cells: Cells, depth: int) -> None:
    of_net = [cell for cell in untrained(cells, depth) if cell.resource == "macs"]
    for axis in AXES:
        _line(axes, [cell for cell in of_net if cell.method == axis], LOOKS[axis], FAMILY_WORDS[axis], "-")
    for control in CONTROLS:
        members = [cell for cell in of_net if cell.method == control]
        _line(axes, members, CONTROL_LOOKS[control], control.replace("_", " "), ":")
    dense = cells.get(CellKey(depth, DENSE))
    if dense is not None:
        axes.axhline(100 * (dense.accuracy or 0.0), color=INK, linestyle=(0, (5, 4)), linewidth=1, zorder=2)
        for stock in (cell for cell in cells.values() if cell.method == DENSE and cell.seed is None and not cell.draw):
            _stock(axes, stock, dense)
    axes.set(title=f"ResNet-{depth}", xlabel="multiply-adds (share of the dense model’s)", ylabel="test accuracy (%)")
    light_grid(axes, "x")
    light_grid(axes, "y")


def _line(axes: Axes, members: Sequence[ImageCell], look: tuple[str, str], label: str, style: str) -> None:
    if not members:
        return
    points = sorted((cell.macs_ratio, 100 * (cell.accuracy or 0.0)) for cell in members)
    solid = style == "-"
    axes.plot(
        [cost for cost, _ in points], [value for _, value in points], color=look[0], marker=look[1], linestyle=style,
        linewidth=1.6 if solid else 1.0, markersize=8 if solid else 6, markeredgecolor="white", label=label,
        zorder=4 if solid else 3,
    )  # fmt: skip


def _stock(axes: Axes, stock: ImageCell, dense: ImageCell) -> None:
    """Draws a network as it was published, if it takes no more multiply-adds than the dense one of the panel."""
    if stock.macs <= dense.macs:
        place = [stock.macs / dense.macs], [100 * (stock.accuracy or 0.0)]
        axes.plot(*place, color=INK, marker="*", markersize=14, linestyle="", label="stock network", zorder=5)
        axes.annotate(f"{stock.depth}", (place[0][0], place[1][0]), textcoords="offset points", xytext=(6, -12))
