"""Holds the result of one cell of the zoo matrix, kept as JSON. No torch here."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data

CELL_FILE = "cell.json"


class Exported(Data):
    """Describes one export of a cell's model.

    relative: the largest difference to the model divided by the output's scale (`Parity`); None if there is no file.
    any_batch_size: whether the file takes any batch size.
    reason: why there is no file, or why the batch size is fixed.
    """

    format: str
    relative: float | None
    any_batch_size: bool = False
    reason: str = ""


class Cell(Data):
    """Describes one cell, which passes if it reaches its MACs, its model reloads to the same outputs and is exported.

    stages: the stages in words.
    macs_are_there: whether the share of MACs is the one that was asked for.
    agreement: the share of inputs on which the model agrees with the dense one.
    reload_error: the largest difference of outputs after loading in a new process, divided by their root mean square.
    reason: why there is no model, in the words of the toolkit's refusal.
    """

    model: str
    order: str
    stages: tuple[str, ...] = ()
    macs_ratio: float | None = None
    macs_are_there: bool = False
    agreement: float | None = None
    reload_error: float | None = None
    exports: tuple[Exported, ...] = ()
    reason: str = ""
    seconds: float = 0.0

    @property
    def passes(self) -> bool:
        """Returns whether nothing is wrong with the cell."""
        return not self.fault

    @property
    def fault(self) -> str:
        """Returns what is wrong with the cell, or an empty text."""
        if self.reason:
            return self.reason
        if not self.macs_are_there:
            return f"the MACs are at {self.macs_ratio}"
        if self.reload_error is None or not self.reload_error <= 1e-6:
            return f"reloaded, the outputs differ by {self.reload_error}"
        if not any(export.relative is not None for export in self.exports):
            return "; ".join(f"{export.format}: {export.reason}" for export in self.exports) or "not exported"
        return ""

    def save(self, folder: Path) -> None:
        """Writes `cell.json` to a folder, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CELL_FILE, self.model_dump_json(indent=1) + "\n")


def load_cell(folder: Path) -> Cell | None:
    """Returns the cell in a folder, or None if it was not run yet.

    Raises:
        RecordError: the file is damaged.
    """
    path = folder / CELL_FILE
    if not path.exists():
        return None
    try:
        return Cell.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path}: damaged or not a cell of the matrix; remove it to run it again") from error
