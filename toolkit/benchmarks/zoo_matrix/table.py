"""Writes the table of the zoo matrix: models by orders, and every failure with its reason."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.files import write_atomically
from toolkit.benchmarks.zoo_matrix.cell import Cell

ORDERS = ("depth", "width", "depth_then_width", "width_then_depth")

COLUMNS = ("model", "order", "passes", "MACs", "agreement", "reload error", "export", "parity", "batch", "reason")


def write_zoo_table(folder: Path, cells: Sequence[Cell], macs_ratio: float) -> None:
    """Writes `table.md` and `table.csv` to a folder; cells that are missing in `cells` are shown as not run."""
    by_model: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        by_model.setdefault(cell.model, {})[cell.order] = cell
    passed = sum(cell.passes for cell in cells)
    lines = [f"# Zoo matrix: {passed} of {len(cells)} cells pass", ""]
    lines += [_line(("model", *ORDERS)), _line(["---"] * (len(ORDERS) + 1))]
    lines += [_line((name, *(_mark(by_order.get(order)) for order in ORDERS))) for name, by_order in by_model.items()]
    lines += [
        "",
        f"Every cell was asked for {macs_ratio} of the MACs; a number is what it has. Then: the export that agrees",
        "with the model at batch 1 and 2 (onnx, with `fixed` where a file of any batch size cannot be expressed, or",
        "torch_export). All passing cells reload in a new process to the same outputs (1e-6).",
        "",
    ]
    failed = [cell for cell in cells if not cell.passes]
    lines += [f"- **{cell.model}, {cell.order}**: {cell.fault}" for cell in failed]
    reasons = [(cell, export) for cell in cells for export in cell.exports if export.relative is None]
    lines += [f"- {cell.model}, {cell.order}: no {export.format}: {export.reason}" for cell, export in reasons]
    write_atomically(folder / "table.md", "\n".join(lines).rstrip() + "\n")
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *map(_row, cells)])
    write_atomically(folder / "table.csv", text.getvalue())


def _mark(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    if not cell.passes:
        return "**fails**"
    good = next(export for export in cell.exports if export.relative is not None)
    return f"{cell.macs_ratio:.3f}, {good.format}{'' if good.any_batch_size else ' fixed'}"


def _row(cell: Cell) -> list[str]:
    good = next((export for export in cell.exports if export.relative is not None), None)
    return [
        cell.model,
        cell.order,
        "yes" if cell.passes else "no",
        "" if cell.macs_ratio is None else f"{cell.macs_ratio:.4f}",
        "" if cell.agreement is None else f"{cell.agreement:.4f}",
        "" if cell.reload_error is None else f"{cell.reload_error:.1e}",
        "" if good is None else good.format,
        "" if good is None or good.relative is None else f"{good.relative:.1e}",
        "" if good is None else ("any" if good.any_batch_size else "fixed"),
        cell.fault,
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
