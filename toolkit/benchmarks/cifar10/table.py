"""Writes the tables and the figure of the CIFAR-10 benchmark from the kept cells alone."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from reports.drawing.style import Drawing, drawing_style, save
from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically
from toolkit.benchmarks.cifar10.cells import (
    BY_HAND,
    BYPASS_METHODS,
    CONTROLS,
    DENSE,
    FAMILY_METHODS,
    RECOVERED,
    CellKey,
    ImageCell,
    load_all,
    load_timing,
    timing_file,
)
from toolkit.benchmarks.cifar10.figure import draw_accuracy
from toolkit.benchmarks.cifar10.scores import (
    SLACK,
    Cells,
    comparisons,
    hypervolume_ratios,
    models,
    over_seeds,
    spread,
    untrained,
)

TABLE_FILE, POINTS_FILE, FIGURE = "table.md", "points.csv", "accuracy-macs"

METHODS = (*FAMILY_METHODS, *BYPASS_METHODS, *CONTROLS)

Row = Sequence[str]


def write_tables(out: Path) -> None:
    """Writes `table.md`, `points.csv` and the figure into the folder of the benchmark.

    Raises:
        UserError: no cell in the folder has a model.
    """
    every = load_all(out)
    cells = models(every)
    if not cells:
        raise UserError(f"{out}: no cell of the benchmark in this folder has a model; run it with --out {out}")
    parts = [
        "# CIFAR-10: depth, width and both on pretrained ResNets",
        "Accuracy on the 10,000 test images in %, in brackets the share of the dense multiply-adds. "
        "No gradient step where nothing else is said.",
        *_accuracies(cells),
        *_by_hand(cells),
        *_differences(cells),
        *_recoveries(cells),
        *_latencies(cells, out),
        *_no_models(every),
    ]
    write_atomically(out / TABLE_FILE, "\n\n".join(parts) + "\n")
    write_atomically(out / POINTS_FILE, _points(cells))
    with drawing_style():
        save(Drawing(FIGURE, draw_accuracy(cells), "accuracy against multiply-adds"), out)


def _accuracies(cells: Cells) -> list[str]:
    limits = {(cell.resource, cell.budget) for cell in untrained(cells) if cell.resource}
    columns = sorted(limits, key=lambda limit: (limit[0] != "macs", -limit[1]))
    head = ["", *(f"{resource} {budget:g}" for resource, budget in columns)]
    depths, parts = _depths(cells), []
    for depth in depths:
        dense = cells.get(CellKey(depth, DENSE))
        title = f"## ResNet-{depth}" + ("" if dense is None else f": dense {100 * (dense.accuracy or 0.0):.2f} %")
        rows = [[method, *(_accuracy(_at(cells, depth, method, *limit)) for limit in columns)] for method in METHODS]
        parts += [title, _table(head, rows)]
    if len(depths) > 1:
        rows = [[method, *(_mean(cells, depths, method, *limit) for limit in columns)] for method in METHODS]
        parts += [f"## Mean over {', '.join(f'ResNet-{depth}' for depth in depths)}", _table(head, rows)]
    return parts


def _by_hand(cells: Cells) -> list[str]:
    by_hand = [(key, cell) for key, cell in cells.items() if key.method in BY_HAND]
    rows = [
        [f"ResNet-{key.depth}", key.method, _accuracy(cell), ", ".join(cell.dropped) or "none"] for key, cell in by_hand
    ]
    return ["## Without a planner", _table(["", "cell", "accuracy", "blocks gone"], rows)] if rows else []


def _at(cells: Cells, depth: int, method: str, resource: str, budget: float) -> ImageCell | None:
    of_net = untrained(cells, depth)
    wanted = method, resource, budget
    return next((cell for cell in of_net if (cell.method, cell.resource, cell.budget) == wanted), None)


def _accuracy(cell: ImageCell | None) -> str:
    return "–" if cell is None else f"{100 * (cell.accuracy or 0.0):.2f} ({cell.macs_ratio:.3f})"


def _mean(cells: Cells, depths: Sequence[int], method: str, resource: str, budget: float) -> str:
    """Returns the mean accuracy over networks, or a dash if a network lacks the cell."""
    of_nets = [_at(cells, depth, method, resource, budget) for depth in depths]
    values = [cell.accuracy for cell in of_nets if cell is not None and cell.accuracy is not None]
    return f"{100 * statistics.mean(values):.2f}" if len(values) == len(depths) else "–"


def _differences(cells: Cells) -> list[str]:
    rows = [
        [
            row.what,
            f"{row.resource} {row.budget:g}" + (f", draw {row.draw}" if row.draw else ""),
            row.better,
            f"{100 * row.difference.mean:+.2f} ({100 * row.difference.low:+.2f} to {100 * row.difference.high:+.2f})",
            row.cuts_both,
        ]
        for row in comparisons(cells)
    ]
    areas = [[f"ResNet-{depth}", _ratio(hypervolume_ratios(cells, depth))] for depth in _depths(cells)]
    return [
        "## Combined minus the better axis",
        _table(["", "budget", "better axis", "points of accuracy (95 % interval)", "cuts both"], rows),
        "The better axis is that of the higher test accuracy, which favours the single axes. Interval: bootstrap over "
        "the images, paired.",
        "## Hypervolume",
        _table(["", "combined / better axis"], areas),
        f"Of accuracy and multiply-adds, up to all of them and the dense accuracy - {SLACK:.2f}, over the budgets that "
        "all families reach.",
    ]


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _recoveries(cells: Cells) -> list[str]:
    trained = [key for key in cells if key.seed is not None and key.draw == 0]
    if not trained:
        return []
    budgets = sorted({key.budget for key in trained if key.resource}, reverse=True)
    parts = ["## After fine-tuning", "Mean over seeds (least to most)."]
    for depth in sorted({key.depth for key in trained}):
        rows = [
            [
                method,
                *(
                    spread([cell.accuracy or 0.0 for cell in over_seeds(cells, depth, method, budget)])
                    for budget in budgets
                ),
            ]
            for method in RECOVERED
        ]
        dense = spread([cell.accuracy or 0.0 for cell in over_seeds(cells, depth, DENSE, 1.0)])
        stock = [
            f"ResNet-{key.depth} {100 * (cell.accuracy or 0.0):.2f} ({cell.macs / _dense_macs(cells, depth):.3f})"
            for key, cell in cells.items()
            if key.method == DENSE and key.seed is None and key.draw == 0 and key.depth < depth
        ]
        parts += [
            f"### ResNet-{depth}",
            _table(["", *(f"macs {budget:g}" for budget in budgets)], rows),
            f"Dense with the same steps: {dense}. Stock networks, not cut: {', '.join(stock) or 'none smaller'}.",
        ]
    return parts


def _dense_macs(cells: Cells, depth: int) -> int:
    return next(cell.dense_macs for key, cell in cells.items() if key.depth == depth)


def _latencies(cells: Cells, out: Path) -> list[str]:
    rows, sizes = [], dict[str, None]()
    for key, cell in cells.items():
        timing = load_timing(timing_file(out, key)) if key.seed is None else None
        if timing is not None:
            ratios = {latency.key.words: f"{latency.ratio:.3f}" for latency in timing.latency}
            sizes |= dict.fromkeys(ratios)
            limit = f"{key.resource} {key.budget:g}"
            rows.append([f"ResNet-{key.depth}", limit, key.method, f"{cell.macs_ratio:.3f}", *ratios.values()])
    if not rows:
        return []
    head = ["", "budget", "method", "MACs", *sizes]
    return ["## Latency", "Measured, as a share of the dense model's, timed in turns with it.", _table(head, rows)]


def _no_models(every: Sequence[ImageCell]) -> list[str]:
    lines = [f"- {cell.key.place}: {cell.reason}" for cell in every if cell.reason]
    return ["## No model", "\n".join(lines)] if lines else []


def _points(cells: Cells) -> str:
    head = [
        "network", "method", "resource", "budget", "seed", "draw", "accuracy", "num_images", "macs", "macs_ratio",
        "params_ratio", "dropped", "widths",
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    for key, cell in cells.items():
        widths = " ".join(f"{name}={width}" for name, width in cell.plan.widths.items()) if cell.plan else ""
        seed = "" if key.seed is None else key.seed
        place = [f"resnet{key.depth}", key.method, key.resource, key.budget, seed, key.draw]
        numbers = [repr(cell.accuracy), cell.num_images, cell.macs, repr(cell.macs_ratio), repr(cell.params_ratio)]
        writer.writerow([*place, *numbers, " ".join(cell.dropped), widths])
    return text.getvalue()


def _depths(cells: Cells) -> list[int]:
    return sorted({key.depth for key in cells})


def _table(head: Row, rows: Sequence[Row]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
