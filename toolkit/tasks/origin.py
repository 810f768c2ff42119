"""Holds the note in a recipe that says which code made the user's own task. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.base.settings import Settings


class TaskOrigin(Settings):
    """Notes that the user's own code makes the task; without that code, the recipe can be read but not run.

    All keys are null for a task that came from a Python program. Nothing is ever imported because of this note: the
    file is named again on the command line (`--task`).

    file: the name of the Python file that made the task, without its folder.
    function: the name of the function in the file that returned the task.
    sha256: the SHA-256 of the file.
    """

    later: ClassVar[frozenset[str]] = frozenset({"file", "function", "sha256"})

    file: Annotated[str, Field(min_length=1)] | None = None
    function: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def in_words(self) -> str:
        """Returns the origin in words: `my_task.py:make_task (SHA-256 0123456789ab...)`, or `a Python program`."""
        if self.file is None:
            return "a Python program"
        return f"{self.file}:{self.function} (SHA-256 {(self.sha256 or 'unknown')[:12]}...)"

    @property
    def how_to_give(self) -> str:
        """Returns what names the task again: the argument of a command, and the file that it must name."""
        if self.file is None:
            return (
                "the task came from a Python program: give run(recipe, task=...) there, or --task FILE.py in a command"
            )
        function = "" if self.function in (None, "make_task") else f":{self.function}"
        return (
            f"give its file again: --task {self.file}{function}, whose SHA-256 began with {(self.sha256 or '?')[:12]}"
        )

    def is_other_than(self, other: TaskOrigin) -> bool:
        """Returns whether both origins are files, and differ in the content of the file or in the function.

        Two files of the same content are the same file, whatever their names: a file may be moved.
        """
        are_files = self.sha256 is not None and other.sha256 is not None
        return are_files and (self.sha256, self.function) != (other.sha256, other.function)
