"""python -m toolkit.schema [--out FILE]: prints the JSON Schema of recipes, for editors that check YAML."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.command import exit_code
from toolkit.base.files import write_atomically
from toolkit.recipe.schema import recipe_schema


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the JSON Schema of recipes or writes it to a file, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.schema", description="Print the JSON Schema of recipes, which explains every key."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the schema to this file (default: print it)")
    args = parser.parse_args(argv)
    return exit_code(lambda: _write(args.out))


def _write(out: Path | None) -> None:
    text = json.dumps(recipe_schema(), indent=2) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        write_atomically(out, text)
        print(f"schema: {out}")


if __name__ == "__main__":
    sys.exit(main())
