"""Keeps measured numbers on disk, in a JSON file that says what the numbers depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically
from toolkit.base.settings import Data


class _Content(Data):
    version: Literal[1] = 1
    about: dict[str, str]
    entries: dict[str, list[float]]


class Store:
    """Keeps lists of numbers by name in a file, which is written after every new entry.

    about: what the numbers depend on, by name.
    """

    def __init__(self, path: Path, about: dict[str, str], entries: dict[str, list[float]]) -> None:
        self.path, self.about, self.entries = path, about, entries

    def get(self, name: str, measure: Callable[[], list[float]]) -> list[float]:
        """Returns the numbers kept under `name`; where there are none, calls `measure` and keeps what it returns."""
        if name not in self.entries:
            self.entries[name] = measure()
            self._save()
        return self.entries[name]

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = _Content(about=self.about, entries=self.entries)
        write_atomically(self.path, content.model_dump_json(indent=1) + "\n")


def open_store(path: Path, about: dict[str, str], rebuild: bool = False) -> Store:
    """Returns the store in the file at `path`, or an empty one where there is no file or `rebuild` is set.

    Raises:
        UserError: the file is damaged, or its numbers depend on something else than `about` says.
    """
    if rebuild or not path.exists():
        return Store(path, about, {})
    try:
        content = _Content.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        how = "remove it, or give --rebuild, to measure its numbers again"
        raise UserError(f"{path}: damaged or cut off ({reason}); {how}") from error
    differences = [
        f"{name}: {content.about.get(name, 'nothing')} in the file, {about.get(name, 'nothing')} now"
        for name in sorted({*about, *content.about})
        if content.about.get(name) != about.get(name)
    ]
    if differences:
        raise UserError(
            f"{path}: its numbers were measured under other conditions ({'; '.join(differences)}); choose another "
            "folder with --tables, or give --rebuild to measure them again in this one"
        )
    return Store(path, about, dict(content.entries))
