"""Holds what is kept of each cell as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data
from toolkit.benchmarks.va_red.rows import name_of
from toolkit.measure.counted import InputMacs
from toolkit.measure.results import Environment, Latency, Quality
from toolkit.recipe.recipe import Recipe


class DynamicCell(Data):
    """Describes one model, or one way of choosing options in it.

    level: the name of the efficiency weight; empty for rows that have none.
    macs, dense_macs: multiply-adds of one example, of the model and of the dense one; a mean over the validation
        examples where the work depends on the input.
    of_inputs: their spread, for rows whose work depends on the input.
    quality: on validation and test.
    latency: measured alone on the machine, later than the rest; empty until then.
    recipe: what made the model; None for the rows that no recipe can state.
    reason: why there is no model; `quality` is then empty.
    """

    task: str
    row: str
    level: str
    seed: int
    macs: int = 0
    dense_macs: int = 0
    of_inputs: InputMacs | None = None
    quality: tuple[Quality, ...] = ()
    latency: tuple[Latency, ...] = ()
    recipe: Recipe | None = None
    seconds: float = 0.0
    reason: str = ""
    environment: Environment

    @property
    def macs_ratio(self) -> float:
        """Returns the multiply-adds as a share of the dense model's."""
        return self.macs / self.dense_macs

    def value(self, split: str) -> float:
        """Returns the metric on a split; raises KeyError if it was not measured."""
        return {quality.split: quality.value for quality in self.quality}[split]


def cell_file(out: Path, study: str, row: str, level: str, seed: int) -> Path:
    """Returns where a cell is kept."""
    return out / "cells" / study / f"{name_of(row, level, seed)}.json"


def save_cell(path: Path, cell: DynamicCell) -> None:
    """Writes a cell, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, cell.model_dump_json(indent=1) + "\n")


def load_cell(path: Path) -> DynamicCell:
    """Returns a cell that was kept.

    Raises:
        RecordError: the file is damaged.
    """
    try:
        return DynamicCell.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecordError(f"{path} holds no cell of this benchmark; delete it to run it again") from error


def load_cells(out: Path) -> list[DynamicCell]:
    """Returns all cells that are kept in a folder, in the order of their files' names."""
    return [load_cell(path) for path in sorted((out / "cells").glob("*/*.json"))]
