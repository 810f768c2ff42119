"""python -m toolkit.schema [--out FILE]: prints the JSON Schema of recipes, for editors that check YAML."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from toolkit.base.files import write_atomically
from toolkit.recipe.schema import recipe_schema


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (None: the arguments of the process), and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m toolkit.schema", description="Print the JSON Schema of recipes, which explains every key."
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the schema to this file (default: print it)")
    args = parser.parse_args(argv)
    text = json.dumps(recipe_schema(), indent=2) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_atomically(args.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
