"""Numbers that took time to get, kept on disk as they come: one JSON file, bound to what they were got with."""

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
    """Entries by name, each a list of numbers. Every new one is on disk before the next is asked for."""

    def __init__(self, path: Path, about: dict[str, str], entries: dict[str, list[float]]) -> None:
        self.path, self.about, self.entries = path, about, entries

    def get(self, name: str, measure: Callable[[], list[float]]) -> list[float]:
        """What is known under that name, else what `measure` finds now."""
        if name not in self.entries:
            self.entries[name] = measure()
            self._save()
        return self.entries[name]

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = _Content(about=self.about, entries=self.entries)
        write_atomically(self.path, content.model_dump_json(indent=1) + "\n")


def open_store(path: Path, about: dict[str, str], rebuild: bool = False) -> Store:
    """What is kept at `path`, or an empty store; with `rebuild`, an empty one in any case.

    Raises:
        UserError: the file is damaged, or its numbers are of something else (`about`).
    """
    if rebuild or not path.exists():
        return Store(path, about, {})
    try:
        content = _Content.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        how = "--rebuild makes it again, and so does removing it"
        raise UserError(f"{path}: damaged or cut off ({reason}); {how}") from error
    other = [
        f"{name}: {content.about.get(name, 'nothing')} there, {about.get(name, 'nothing')} here"
        for name in sorted({*about, *content.about})
        if content.about.get(name) != about.get(name)
    ]
    if other:
        raise UserError(
            f"{path}: its numbers are of something else ({'; '.join(other)}); choose another --tables folder, or "
            "--rebuild to make them again here"
        )
    return Store(path, about, dict(content.entries))
