"""dwt COMMAND ..., or python -m toolkit COMMAND ...: runs python -m toolkit.COMMAND; alone it explains each command."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.words import did_you_mean

COMMANDS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))

REPORTS = "reports"  # a package of its own, whose sentence is below

EXAMPLES = """\
examples:
  dwt new task mine                                      a task file and a recipe that run as they are, to change
  dwt inspect --check --task mine/my_task.py             what can be cut in your model, and what is in the way
  dwt plan --task mine/my_task.py --budget latency=0.5 --out planned.yaml
                                                         the best recipe found for half the latency
  dwt apply planned.yaml --task mine/my_task.py --check  finds faults first; without --check it runs
  dwt apply recipe.yaml --seed 1 --set stages.0.num_blocks=4 --out runs/four
                                                         the same recipe with another seed and four blocks
  dwt export runs/four --format onnx                     a file for deployment, compared with the model
  dwt predict runs/four --out predictions.csv            what the smaller model says of the test data
  dwt reports runs/three runs/four                       runs side by side

python -m toolkit.COMMAND does the same. Exit codes: 0 done, 2 something you can fix, 1 something unexpected."""


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
    choices = (*COMMANDS, REPORTS)
    if words[0] not in choices:
        hint = did_you_mean(words[0], choices)
        print(f"{words[0]!r} is not a command; {hint}choose one of: {', '.join(choices)}", file=sys.stderr)
        return 2
    module = f"{REPORTS}.__main__" if words[0] == REPORTS else f"toolkit.{words[0]}"
    return int(importlib.import_module(module).main(words[1:]))


def _overview() -> str:
    """Returns how to call a command, a sentence on each, and examples."""
    sentences = [f"  {command:<9}{_sentence(command)}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: dwt COMMAND ...    (dwt COMMAND --help: its arguments)",
            "",
            *sentences,
            f"  {REPORTS:<9}compares runs, and draws the fronts of a sweep.",
            "",
            EXAMPLES,
        ]
    )


def _sentence(command: str) -> str:
    """Returns what a command does: the first line of its file, which is read and not run, as it may import torch."""
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    first_line = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return first_line.partition(": ")[2]


if __name__ == "__main__":
    sys.exit(main())
