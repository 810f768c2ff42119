"""Makes the JSON Schema of a recipe."""

from __future__ import annotations

from typing import Any

from toolkit.recipe.recipe import Recipe


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe file. Stricter than the Python model: a file names every stage's type, and every top-level
    key but those that came later.
    """
    schema = Recipe.model_json_schema()
    schema["required"] = [name for name in Recipe.model_fields if name not in Recipe.later]
    for definition in schema["$defs"].values():
        if "type" in definition.get("properties", {}):  # a definition that allows any JSON value has no properties
            definition["required"] = ["type", *definition.get("required", [])]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
