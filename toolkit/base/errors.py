"""Holds the errors that the user can fix: commands print them without a traceback and exit with code 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class UserError(Exception):
    """Says that something the user gave cannot be used; the message names the place, the value and the choices."""


@dataclass(frozen=True)
class Fault:
    """Describes one fault in a recipe.

    path: the keys and indices that lead to the value, such as `("stages", 0, "num_blocks")`.
    line: the line in the file, counted from 1; None where it is not known.
    argument: the words of the command line that gave the value, such as `--seed -1`; None where the file gave it.
    """

    path: tuple[str | int, ...]
    message: str
    line: int | None = None
    argument: str | None = None

    @property
    def place(self) -> str:
        """Returns the path as one word, such as `stages.0.num_blocks`."""
        return ".".join(str(part) for part in self.path)


class RecipeError(UserError):
    """Says that a recipe has faults; `str()` gives one line per fault: `file:line: place: message`.

    Where the command line gave the value, its words stand in the place of file and line.
    """

    def __init__(self, faults: Sequence[Fault], file: str | Path | None = None) -> None:
        assert faults, "a RecipeError needs at least one fault"
        self.faults = tuple(faults)
        self.file = file
        super().__init__("\n".join(self._line(fault) for fault in self.faults))

    def _line(self, fault: Fault) -> str:
        where = fault.argument or ":".join(str(part) for part in (self.file, fault.line) if part is not None)
        return ": ".join([part for part in (where, fault.place) if part] + [fault.message])


class StageError(UserError):
    """Says that a stage could not reach its target; `stage_index` is its place in the recipe, counted from 0."""

    def __init__(self, message: str, stage_index: int | None = None) -> None:
        super().__init__(message)
        self.stage_index = stage_index


class RecordError(UserError):
    """Says that a run record is damaged, of another version, or must not be compared or overwritten."""


class CheckpointError(UserError):
    """Says that a saved model is damaged, of another version, or no longer computes what it did when it was saved."""


class ExportError(UserError):
    """Says that a model cannot be written in another format, or that the file does not compute what the model does."""


class PlanError(UserError):
    """Says that no plan of the family holds the budget."""
