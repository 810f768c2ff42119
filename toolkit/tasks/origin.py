"""Where a task of the user's own comes from, as recipes keep it. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.base.settings import Settings


class TaskOrigin(Settings):
    """A note that the task is the user's own; a recipe with it can be read without the task, but not run.

    `file`: the name of the Python file that made the task, without its folder; `function`: the one in it that was
    called; `sha256`: of the file. All are null for a task that came from a Python program. Nothing is ever imported
    because of this note: the file is named again on the command line (`--task`).
    """

    later: ClassVar[frozenset[str]] = frozenset({"file", "function", "sha256"})

    file: Annotated[str, Field(min_length=1)] | None = None
    function: Annotated[str, Field(min_length=1)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def in_words(self) -> str:
        """Returns `my_task.py:make_task (SHA-256 0123456789ab...)`, or that the task came from a program."""
        if self.file is None:
            return "a Python program"
        return f"{self.file}:{self.function} (SHA-256 {(self.sha256 or 'unknown')[:12]}...)"

    def is_other_than(self, other: TaskOrigin) -> bool:
        """Returns whether both are files and these are not one and the same function of one and the same file.

        The name of the file may differ: a moved file is the same.
        """
        both = self.sha256 is not None and other.sha256 is not None
        return both and (self.sha256, self.function) != (other.sha256, other.function)
