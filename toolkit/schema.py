"""python -m toolkit.schema [--out FILE]: the JSON Schema of a recipe, for editors that check YAML while it is typed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.recipe import Recipe
from toolkit.record import write_atomically


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe file. Stricter than the Python model: a file names every stage's type, and every top-level
    key but `model`.
    """
    schema = Recipe.model_json_schema()
    schema["required"] = [name for name in Recipe.model_fields if name != "model"]
    for definition in schema["$defs"].values():
        if "type" in definition.get("properties", {}):  # any JSON value is a definition without them
            definition["required"] = ["type", *definition.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m toolkit.schema", description="Print the JSON Schema of a recipe.")
    parser.add_argument("--out", type=Path, help="write it to this file instead")
    args = parser.parse_args(argv)
    text = json.dumps(recipe_schema(), indent=2) + "\n"
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_atomically(args.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
