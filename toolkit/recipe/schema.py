"""Makes the JSON Schema of a recipe."""

from __future__ import annotations

import re
from typing import Any

from toolkit.recipe.recipe import Recipe

_KEYS = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.*)")


def recipe_schema() -> dict[str, Any]:
    """Returns the schema of a recipe file, in which every key has a description, which editors show.

    It is stricter than the Python model: a file names the type of every stage, and every top-level key but those that
    were added after the first version.
    """
    schema = Recipe.model_json_schema()
    schema["required"] = [name for name in Recipe.model_fields if name not in Recipe.later]
    for definition in schema["$defs"].values():
        if "type" in definition.get("properties", {}):  # a definition that allows any JSON value has no properties
            definition["required"] = ["type", *definition.get("required", [])]
    for definition in (schema, *schema["$defs"].values()):
        _describe_keys(definition)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _describe_keys(definition: dict[str, Any]) -> None:
    """Moves the lines `name: meaning` of a class's docstring to the keys that they describe."""
    keys, rest = definition.get("properties", {}), []
    described: list[str] = []  # the keys of the line before, which an indented line goes on with
    for line in definition.get("description", "").splitlines():
        match = _KEYS.fullmatch(line)
        if match and all(name in keys for name in match["names"].split(", ")):
            described = match["names"].split(", ")
            for name in described:
                keys[name]["description"] = match["text"]
        elif described and line.startswith("    "):
            for name in described:
                keys[name]["description"] += f" {line.strip()}"
        else:
            described = []
            rest.append(line)
    if rest or keys:
        definition["description"] = "\n".join(rest).strip()
