"""Reads and runs the user's Python file that makes a task; the command line names the file, and a recipe never does.

Nothing here imports torch: a command that only reads a recipe is as fast with such a file as without.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from toolkit.base.errors import UserError
from toolkit.base.files import bytes_sha256
from toolkit.base.raised import one_line, place_of
from toolkit.tasks.cards import TASKS
from toolkit.tasks.origin import TaskOrigin

if TYPE_CHECKING:
    from toolkit.tasks.task import Task

FUNCTION: Final = "make_task"

DATA: Final = ("name", "metric", "protected")  # members of a task that are no methods

METHODS: Final = (
    "build_model",
    "load_baseline",
    "example_inputs",
    "num_examples",
    "batches",
    "train_batches",
    "loss",
    "alignment",
    "evaluate",
    "timeline",
)

SEE: Final = "the members of a task are listed in toolkit/tasks/task.py; ClassificationTask has them all"


@dataclass(frozen=True)
class TaskFile:
    """Holds the file as it was read; it is hashed and run from the same bytes, so that the hash is of what runs.

    function: the name of the function that makes the task.
    source: the content of the file.
    """

    path: Path
    function: str
    source: bytes

    @property
    def origin(self) -> TaskOrigin:
        """Returns the note about this file that recipes keep."""
        return TaskOrigin(file=self.path.name, function=self.function, sha256=bytes_sha256([self.source]))

    def make(self) -> Task:
        """Runs the file, calls its function, and returns the task; the file may import what lies beside it.

        Raises:
            UserError: the file or the function raises, there is no such function, or it returns no task. The message
                names the line of the user's file.
        """
        module = self._run()
        make = getattr(module, self.function, None)
        if not callable(make):
            functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            defined_here = [name for name in functions if getattr(module, name).__module__ == module.__name__]
            raise UserError(
                f"{self.path}: has no function {self.function!r}; its functions are: "
                f"{', '.join(defined_here) or 'none'}; choose one with --task {self.path}:FUNCTION"
            )
        needed = _needed_arguments(make)
        if needed:
            raise UserError(f"{self.path}: {self.function} must take no arguments, but needs {', '.join(needed)}")
        return self._checked(self._call(make))

    def _run(self) -> ModuleType:
        folder = str(self.path.resolve().parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        module = ModuleType(f"task_file_{self.path.stem}")
        module.__file__ = str(self.path)
        sys.modules[module.__name__] = module  # dataclasses and worker processes look their module up there
        code = self.compiled()
        self._call(lambda: exec(code, vars(module)))
        return module

    def compiled(self) -> CodeType:
        """Returns the compiled code of the file.

        Raises:
            UserError: the file is not Python.
        """
        try:
            return compile(self.source, str(self.path), "exec")
        except SyntaxError as error:
            line = "" if error.lineno is None else f":{error.lineno}"
            raise UserError(f"{self.path}{line}: is not Python: {error.msg}") from error
        except ValueError as error:  # bytes that no source holds
            raise UserError(f"{self.path}: is not Python: {error}") from error

    def _call(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (Exception, SystemExit) as error:
            place = self._place_of(error)
            message = str(error) if isinstance(error, UserError) else one_line(error)
            raise UserError(f"{place}: {message}") from error

    def _place_of(self, error: BaseException) -> str:
        """Returns the last line of this file that ran, and that of another file of the user's that it called."""
        frames = extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(self.path)]
        in_this_file = f"{self.path}:{lines[-1]}" if lines else str(self.path)
        last = place_of(error)
        return in_this_file if last is None or in_this_file.endswith(last) else f"{in_this_file} (in {last})"

    def _checked(self, made: Any) -> Task:
        if made is None:
            raise UserError(f"{self.path}: {self.function} returns nothing; it must return a Task ({SEE})")
        missing = [name for name in DATA if not hasattr(made, name)]
        missing += [name for name in METHODS if not callable(getattr(made, name, None))]
        if missing:
            raise UserError(
                f"{self.path}: {self.function} returns {_a(type(made).__name__)}, which is no Task: it lacks "
                f"{', '.join(missing)}; {SEE}"
            )
        for name in ("name", "metric"):
            if not isinstance(getattr(made, name), str) or not getattr(made, name):
                raise UserError(
                    f"{self.path}: the task's {name} is {getattr(made, name)!r}; it must be a text that is not empty"
                )
        if not isinstance(made.protected, tuple) or not all(isinstance(name, str) for name in made.protected):
            raise UserError(f"{self.path}: the task's protected is {made.protected!r}; it must be a tuple of texts")
        if made.name in TASKS:
            raise UserError(
                f"{self.path}: the task's name {made.name!r} is that of a built-in task; give it another name"
            )
        task: Task = made
        return task


def read_task_file(text: str) -> TaskFile:
    """Returns the file that `FILE.py` or `FILE.py:FUNCTION` names, without running it.

    Raises:
        UserError: the file does not exist, or is not Python.
    """
    name, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier() or Path(text).exists():
        name, function = text, FUNCTION
    path = Path(name)
    if path.is_dir():
        raise UserError(f"--task {text}: {name} is a folder; name a Python file in it that makes a task")
    if not path.exists():
        raise UserError(
            f"--task {text}: there is no file {name}; give a Python file with a function {FUNCTION}() that returns a "
            "task, or FILE.py:FUNCTION"
        )
    file = TaskFile(path, function, path.read_bytes())
    file.compiled()
    return file


def given_task_file(args: argparse.Namespace) -> TaskFile | None:
    """Returns the file that `--task` names; None if the option was not given."""
    return None if args.task_file is None else read_task_file(args.task_file)


def add_task_file_argument(parser: argparse.ArgumentParser) -> None:
    """Adds the argument `--task` for the user's own task."""
    parser.add_argument(
        "--task",
        dest="task_file",
        metavar="FILE.py[:FUNCTION]",
        help="Python file of your own task, which is run; its FUNCTION, by default "
        f"{FUNCTION}, returns the Task (default: a built-in task)",
    )


def _needed_arguments(make: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a callable without a signature
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [known.name for known in parameters if known.default is known.empty and known.kind not in variable]


def _a(name: str) -> str:
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
