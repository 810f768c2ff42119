"""Writes the results of a planner's sweep as `fronts.md`, and all of its cells as `points.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from reports.fronts.cells import FrontCell, Fronts, Gap, Place
from reports.fronts.checks import SPLITS
from reports.fronts.tables import Sheet, lists, sheets
from toolkit.base.files import write_atomically
from toolkit.stages.channel_prune.settings import Heads

TABLE_FILE: Final = "fronts.md"

POINTS_FILE: Final = "points.csv"


def write_fronts_table(fronts: Fronts, folder: Path) -> None:
    """Writes `fronts.md` and `points.csv` to a folder."""
    write_atomically(folder / TABLE_FILE, fronts_markdown(fronts))
    write_atomically(folder / POINTS_FILE, fronts_csv(fronts))


def fronts_markdown(fronts: Fronts) -> str:
    """Returns all tables and lists of the sweep as Markdown."""
    parts = [f"# {fronts.name}: fronts of planned models", fronts.settings, *map(_sheet, sheets(fronts))]
    for title, lines in lists(fronts):
        parts.append(f"{title}: {'none.' if not lines else ''}".rstrip())
        parts += ["\n".join(f"- {line}" for line in lines)] if lines else []
    return "\n\n".join(parts) + "\n"


def fronts_csv(fronts: Fronts) -> str:
    """Returns one row for each cell as CSV, also for cells without a measurement; numbers are not rounded."""
    keys = [cost.key for cost in fronts.costs]
    predicted = sorted({key for cell in fronts.cells for key in cell.predicted})
    head = ["variant", "family", "budget", "seed", "status", *keys]
    head += [f"predicted_{key}" for key in predicted]
    head += [f"{which}{split}" for which in ("", "dense_") for split in SPLITS]
    bypassed = ["bypassed"] if any(cell.bypassed for cell in fronts.cells) else []
    head += ["test_minus_dense", "metric", "dropped", *bypassed, "widths", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**_measured(cell), "metric": fronts.metric} for cell in fronts.cells)
    for status, gaps in (("infeasible", fronts.infeasible), ("not run", fronts.not_run)):
        writer.writerows(_gap(gap, status) for gap in gaps)
    return text.getvalue()


def _measured(cell: FrontCell) -> dict[str, str]:
    row = _place(cell.place, "measured")
    row |= {key: repr(ratio) for key, ratio in cell.costs.items()}
    row |= {f"predicted_{key}": repr(ratio) for key, ratio in cell.predicted.items()}
    row |= {split: repr(value) for split, value in cell.quality.items()}
    row |= {f"dense_{split}": repr(value) for split, value in cell.dense_quality.items()}
    row |= {"test_minus_dense": repr(cell.change), "dropped": " ".join(cell.dropped)}
    plain = {name: width.model_dump() if isinstance(width, Heads) else width for name, width in cell.widths.items()}
    row |= {"bypassed": json.dumps(dict(cell.bypassed))} if cell.bypassed else {}
    return row | {"widths": json.dumps(plain) if plain else ""}


def _gap(gap: Gap, status: str) -> dict[str, str]:
    return _place(gap.place, status) | {"reason": gap.reason}


def _place(place: Place, status: str) -> dict[str, str]:
    family = place.family or "control"
    return {
        "variant": place.variant, "family": family, "budget": place.budget, "seed": str(place.seed), "status": status
    }  # fmt: skip


def _sheet(sheet: Sheet) -> str:
    rows = [_line(sheet.head), _line(["---"] * len(sheet.head)), *map(_line, sheet.rows)]
    return f"## {sheet.title}\n\n" + "\n".join(rows) + f"\n\n{sheet.note}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
