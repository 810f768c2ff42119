"""Writes the table of a sweep, each variant after each of its stages, and a figure of the differences."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from reports.drawing.style import Drawing, drawing_style, save
from reports.sweep.figure import draw_sweep
from reports.sweep.rows import Row, sweep_rows
from toolkit.base.files import write_atomically
from toolkit.record.run import RUN_FILE, load_record

COLUMNS = (
    "variant",
    "after",
    "seeds",
    "blocks left",
    "MACs",
    "latency",
    "validation",
    "test",
    "test - dense",
    "block passes",
)


def write_sweep_table(folder: Path, name: str, cells: Sequence[str]) -> None:
    """Writes `table.md`, `table.csv` and the figure to a folder; unfinished cells are listed as not run.

    name: the name of the sweep.
    cells: the names of all cells (`variant/seedN`).
    """
    records = {cell: load_record(folder / cell) for cell in cells if (folder / cell / RUN_FILE).exists()}
    finished = {cell: record for cell, record in records.items() if record.finished}
    rows = sweep_rows(finished)
    missing = [cell for cell in cells if cell not in finished]
    cellwise = [_cells(row) for row in rows]
    lines = [f"# {name}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, cellwise), ""]
    lines += ["Mean (least to most over seeds). MACs are multiply-adds as a share of the dense model's; latency is the"]
    lines += ["median of the ratios to the dense model, timed in turns, at the largest batch measured. Block passes:"]
    lines += ["blocks run to score the candidates, as a share of n(n - 1) per round, repairs not counted.", ""]
    lines += [f"Not run: {', '.join(missing) or 'none'}.", ""]
    write_atomically(folder / "table.md", "\n".join(lines))
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *cellwise])
    write_atomically(folder / "table.csv", text.getvalue())
    changed = [row for row in rows if row.after and row.change]
    if changed:
        with drawing_style():
            caption = "Test metric minus the dense model's of the same seed."
            save(Drawing("differences", draw_sweep(name, changed), caption), folder)


def _cells(row: Row) -> list[str]:
    blocks = "/".join(dict.fromkeys(map(str, row.blocks)))
    spreads = [_spread(values, 3) for values in (row.macs, row.latency)]
    spreads += [_spread(values, 4) for values in (row.validation, row.test)]
    passes = _spread(row.passes, 3)
    if row.as_naive:
        passes += f"; {sum(row.as_naive)} of {len(row.as_naive)} choices as naive"
    return [row.variant, row.after, str(row.num_runs), blocks, *spreads, _spread(row.change, 4, sign="+"), passes]


def _spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    same = len(values) == 1 or max(values) - min(values) < 0.5 * 10**-digits
    return mean if same else f"{mean} ({min(values):{sign}.{digits}f} to {max(values):{sign}.{digits}f})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
