"""The result of one cell of the zoo matrix, as JSON. No torch here."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data

CELL_FILE = "cell.json"


class Exported(Data):
    """`relative`: the largest difference to the model over the output's scale (`Parity`); None if there is no file."""

    format: str
    relative: float | None
    any_batch_size: bool = False
    reason: str = ""


class Cell(Data):
    """A cell passes when the MACs are there, the model runs, reloads to the same outputs and an export agrees.

    `reload_error`: largest difference after loading in a new process, over the outputs' root mean square.
    """

    model: str
    order: str
    stages: tuple[str, ...] = ()
    macs_ratio: float | None = None
    macs_are_there: bool = False
    agreement: float | None = None
    reload_error: float | None = None
    exports: tuple[Exported, ...] = ()
    reason: str = ""  # why there is no model, in the toolkit's words
    seconds: float = 0.0

    @property
    def passes(self) -> bool:
        return not self.fault

    @property
    def fault(self) -> str:
        """What is wrong, "" for nothing."""
        if self.reason:
            return self.reason
        if not self.macs_are_there:
            return f"the MACs are at {self.macs_ratio}"
        if self.reload_error is None or not self.reload_error <= 1e-6:
            return f"reloaded, the outputs differ by {self.reload_error}"
        if not any(one.relative is not None for one in self.exports):
            return "; ".join(f"{one.format}: {one.reason}" for one in self.exports) or "not exported"
        return ""

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CELL_FILE, self.model_dump_json(indent=1) + "\n")


def load_cell(folder: Path) -> Cell | None:
    """None where there is none yet. Raises RecordError: damaged."""
    path = folder / CELL_FILE
    if not path.exists():
        return None
    try:
        return Cell.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path}: damaged or not a cell of the matrix; remove it to run it again") from error
