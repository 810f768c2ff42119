"""The JSON Schema on disk is the current one, and says what every key is."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from toolkit.recipe.recipe import Recipe
from toolkit.recipe.schema import key_meanings, recipe_schema
from toolkit.schema import main

ON_DISK = Path(__file__).parents[2] / "recipes" / "recipe.schema.json"


def test_schema_on_disk_is_current() -> None:
    assert json.loads(ON_DISK.read_text()) == recipe_schema(), (
        "run: python -m toolkit.schema --out recipes/recipe.schema.json"
    )


def test_schema_is_as_strict_as_the_loader() -> None:
    schema = recipe_schema()
    assert schema["required"] == ["name", "task", "stages"]
    assert schema["additionalProperties"] is False
    for name in ("BlockDrop", "ChannelPrune", "Recover", "Align"):
        assert schema["$defs"][name]["required"] == ["type"]
        assert schema["$defs"][name]["additionalProperties"] is False


def test_printed_and_written_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schema.json"
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert main(["--out", str(path)]) == 0
    assert path.read_text() == printed
    assert capsys.readouterr().out == f"schema: {path}\n"


def test_where_the_schema_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "missing" / "schema.json")]) == 2
    error = capsys.readouterr().err
    assert "No such file or directory" in error and error.count("\n") == 1


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields all classes of settings in an annotation, and in the annotations of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for part in typing.get_args(annotation):
        yield from models_in(part)


def test_every_key_is_described() -> None:
    schema = recipe_schema()
    definitions = {**schema["$defs"], Recipe.__name__: schema}
    names = {model.__name__ for model in models_in(Recipe)}
    assert {"Recipe", "Measure", "ZooModel", "TaskOrigin"} <= names
    missing = [
        f"{name}.{key}"
        for name in names
        for key, content in definitions[name]["properties"].items()
        if not content.get("description")
    ]
    assert missing == []


def test_meanings_of_keys() -> None:
    docstring = """States a thing: this line is no key.

key: what it is, in two
    lines.
first, second: one meaning of both.

Nothing more: these words are no key either, but `key`: is none.
"""
    assert key_meanings(docstring) == {
        "key": "what it is, in two lines.",
        "first": "one meaning of both.",
        "second": "one meaning of both.",
    }
