"""One table over a sweep: each variant after each of its stages, mean and spread over the seeds."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.record import RUN_FILE, RunRecord, StepRecord, load_record, write_atomically

COLUMNS = ("variant", "after", "seeds", "blocks left", "MACs", "latency", "validation", "test", "test - dense")


@dataclass
class Row:
    """The runs of one variant after one stage; every list has one entry per seed."""

    variant: str
    after: str
    blocks: list[int] = field(default_factory=list)
    macs: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)


def write_sweep_table(folder: Path, name: str, cells: Sequence[str]) -> None:
    """Write `table.md` and `table.csv` below `folder`; cells that have not finished are listed as not run."""
    records = {cell: load_record(folder / cell) for cell in cells if (folder / cell / RUN_FILE).exists()}
    finished = {cell: record for cell, record in records.items() if record.finished}
    rows = sweep_rows(finished)
    missing = [cell for cell in cells if cell not in finished]
    cellwise = [_cells(row) for row in rows]
    lines = [f"# {name}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, cellwise), ""]
    lines += ["Mean (least to most over seeds). MACs are multiply-adds as a share of the dense model's; latency is the"]
    lines += ["median over the dense model's, timed in turns, at the largest batch measured.", ""]
    lines += [f"Not run: {', '.join(missing) or 'none'}.", ""]
    write_atomically(folder / "table.md", "\n".join(lines))
    text = io.StringIO()
    csv.writer(text).writerows([COLUMNS, *cellwise])
    write_atomically(folder / "table.csv", text.getvalue())


def sweep_rows(records: dict[str, RunRecord]) -> list[Row]:
    """Rows in the order of the cells (`variant/seedN`): dense once, then every stage of every variant."""
    rows: dict[tuple[str, int], Row] = {}
    for cell, record in records.items():
        variant = cell.partition("/")[0]
        for index, step in enumerate(record.steps):
            key = (variant if index else "dense", index)
            row = rows.setdefault(key, Row(key[0], f"{index} {step.stage}" if index else ""))
            if index == 0 and variant != next(iter(records)).partition("/")[0]:
                continue  # the dense model is the same for every variant
            _add(row, record, step, index)
    return list(rows.values())


def _add(row: Row, record: RunRecord, step: StepRecord, index: int) -> None:
    now, dense = step.measurement, record.baseline.measurement
    row.macs.append(now.macs.total / dense.macs.total)
    row.latency.append(now.latency[-1].ratio)
    left = _blocks_left(record, index)
    if left is not None:
        row.blocks.append(left)
    for split, values in (("validation", row.validation), ("test", row.test)):
        found = now.quality_on(split)
        if found is not None:
            values.append(found.value)
    before, after = dense.quality_on("test"), now.quality_on("test")
    if before is not None and after is not None:
        row.change.append(after.value - before.value)


def _blocks_left(record: RunRecord, index: int) -> int | None:
    """How many blocks are left after step `index`; None if no stage of the run has named them."""
    for step in reversed(record.steps[: index + 1]):
        if isinstance(step.detail.get("remaining"), list):
            return len(step.detail["remaining"])
    return None


def _cells(row: Row) -> list[str]:
    blocks = "/".join(dict.fromkeys(map(str, row.blocks)))
    spreads = [_spread(values, 3) for values in (row.macs, row.latency)]
    spreads += [_spread(values, 4) for values in (row.validation, row.test)]
    return [row.variant, row.after, str(len(row.macs)), blocks, *spreads, _spread(row.change, 4, sign="+")]


def _spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.{digits}f}"
    same = len(values) == 1 or max(values) - min(values) < 0.5 * 10**-digits
    return mean if same else f"{mean} ({min(values):{sign}.{digits}f} to {max(values):{sign}.{digits}f})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
