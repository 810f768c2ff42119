"""States what a kind of starter holds, and writes it into a new folder. Nothing here imports torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from toolkit.base.errors import UserError
from toolkit.base.files import write_atomically

FOLDER: Final = "files"  # of this package; the name of each kind is a folder in it

PLACE: Final = "FOLDER"  # stands in commands for the folder that is written


@dataclass(frozen=True)
class Starter:
    """States one kind of starter.

    name: the word of the command line, which also names the folder of its files.
    summary: what the files are, in a few words.
    files: the names of the files, which are copied as they are.
    next: commands to go on with, in order; `FOLDER` stands for the folder that was written.
    """

    name: str
    summary: str
    files: tuple[str, ...]
    next: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Writes the files into a folder, which is made where it is missing.

        Raises:
            UserError: one of the files exists already, or the folder cannot be made; nothing is written then.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; choose another folder")
        there = [name for name in self.files if (folder / name).exists()]
        if there:
            raise UserError(f"{folder / there[0]}: exists already; choose another folder, or remove the file")
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files:
            write_atomically(folder / name, self.text(name))

    def text(self, name: str) -> str:
        """Returns the content of one of the files."""
        return (files(__package__) / FOLDER / self.name / f"{name}.txt").read_text(encoding="utf-8")

    def commands(self, folder: Path) -> list[str]:
        """Returns the commands to go on with, for the folder that was written, as a shell takes them."""
        lines = [[word.replace(PLACE, folder.as_posix()) for word in command.split()] for command in self.next]
        return [shlex.join(words) for words in lines]
