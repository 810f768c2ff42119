"""Makes the JSON Schema of a recipe, in which every key is described by the docstring of its class."""

from __future__ import annotations

import re
from typing import Any

from toolkit.recipe.recipe import Recipe

_MEANING = re.compile(r"^(?P<keys>\w+(?:, \w+)*): (?P<meaning>.+(?:\n[ \t]+\S.*)*)", flags=re.MULTILINE)


def recipe_schema() -> dict[str, Any]:
    """Returns the schema of a recipe file, which is stricter than the Python model.

    A file must name the type of every stage.
    """
    schema = Recipe.model_json_schema()
    for definition in schema["$defs"].values():
        if "type" in definition.get("properties", {}):  # a definition that allows any JSON value has no properties
            definition["required"] = ["type", *definition.get("required", [])]
            definition["properties"]["type"].setdefault(
                "description", "the name of the stage or task whose settings these are"
            )
    for definition in (schema, *schema["$defs"].values()):
        meanings = key_meanings(definition.get("description", ""))
        for key, content in definition.get("properties", {}).items():
            if key in meanings:
                content.setdefault("description", meanings[key])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def key_meanings(docstring: str) -> dict[str, str]:
    """Returns what a docstring says of each key, in lines such as `key: meaning` or `key, other_key: meaning`.

    Indented lines continue the meaning of the key above them.
    """
    return {
        key: " ".join(match["meaning"].split())
        for match in _MEANING.finditer(docstring)
        for key in match["keys"].split(", ")
    }
