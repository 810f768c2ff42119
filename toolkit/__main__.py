"""python -m toolkit COMMAND ...: runs python -m toolkit.COMMAND; without a command it lists all commands."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (None: the arguments of the process), and returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    usage = f"usage: python -m toolkit COMMAND ...; the commands are: {', '.join(COMMANDS)}"
    if words[:1] in (["-h"], ["--help"]):
        print(usage)
        return 0
    if not words or words[0] not in COMMANDS:
        print(usage if not words else f"{words[0]!r} is not a command; {usage}", file=sys.stderr)
        return 2
    return int(importlib.import_module(f"toolkit.{words[0]}").main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
