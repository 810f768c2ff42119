"""The errors that mean "the user can fix this": the command line prints them without a traceback and exits with 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class UserError(Exception):
    """Something the user gave cannot be used; the message names the place, the value and the choices."""


@dataclass(frozen=True)
class Fault:
    """One fault in a recipe: `path` leads to the value (`("stages", 0, "num_blocks")`), `line` is 1-based."""

    path: tuple[str | int, ...]
    message: str
    line: int | None = None

    @property
    def place(self) -> str:
        return ".".join(str(part) for part in self.path)


class RecipeError(UserError):
    """A recipe with one or more faults; `str()` gives one line per fault: `file:line: place: message`."""

    def __init__(self, faults: Sequence[Fault], file: str | Path | None = None) -> None:
        assert faults, "a RecipeError needs at least one fault"
        self.faults = tuple(faults)
        self.file = file
        super().__init__("\n".join(self._line(fault) for fault in self.faults))

    def _line(self, fault: Fault) -> str:
        where = [str(part) for part in (self.file, fault.line) if part is not None]
        return ": ".join([part for part in (":".join(where), fault.place) if part] + [fault.message])


class StageError(UserError):
    """A stage could not reach its target; `stage_index` is its place in the recipe, counted from 0."""

    def __init__(self, message: str, stage_index: int | None = None) -> None:
        super().__init__(message)
        self.stage_index = stage_index


class RecordError(UserError):
    """A run record is damaged, of another version, or must not be compared or overwritten."""


class CheckpointError(UserError):
    """A saved model is damaged, of another version, or does not compute what it did when it was saved."""


class ExportError(UserError):
    """A model cannot be written in another format, or the file does not compute what the model does."""


class PlanError(UserError):
    """No plan of the family holds the budget."""
