"""python -m toolkit COMMAND ...: runs python -m toolkit.COMMAND; without a command it says what each one does."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.words import did_you_mean

COMMANDS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first argument names, or says what each one does, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        print(_overview())
        return 0
    if not words:
        print(_overview(), file=sys.stderr)
        return 2
    if words[0] not in COMMANDS:
        hint = did_you_mean(words[0], COMMANDS)
        print(f"{words[0]!r} is not a command; {hint}choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"toolkit.{words[0]}").main(words[1:]))


def _overview() -> str:
    """Returns how to call a command, and a sentence on each."""
    sentences = [f"  {command:<9}{_sentence(command)}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: python -m toolkit COMMAND ...    (python -m toolkit COMMAND --help: its arguments)",
            *sentences,
            "python -m reports RUN_DIR... compares runs, and draws the fronts of a sweep.",
        ]
    )


def _sentence(command: str) -> str:
    """Returns what a command does: the first line of its file, which is read and not run, as it may import torch."""
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    first_line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return first_line.partition(": ")[2]


if __name__ == "__main__":
    sys.exit(main())
