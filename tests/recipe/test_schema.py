"""The JSON Schema on disk is the current one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolkit.recipe.recipe import Recipe
from toolkit.recipe.schema import recipe_schema
from toolkit.schema import main

ON_DISK = Path(__file__).parents[2] / "recipes" / "recipe.schema.json"


def test_schema_on_disk_is_current() -> None:
    assert json.loads(ON_DISK.read_text()) == recipe_schema(), (
        "run: python -m toolkit.schema --out recipes/recipe.schema.json"
    )


def test_schema_is_as_strict_as_the_loader() -> None:
    schema = recipe_schema()
    assert schema["required"] == [name for name in Recipe.model_fields if name not in ("model", "own_task")]
    assert schema["additionalProperties"] is False
    for name in ("BlockDrop", "ChannelPrune", "Recover", "Align"):
        assert schema["$defs"][name]["required"] == ["type"]
        assert schema["$defs"][name]["additionalProperties"] is False


def test_printed_and_written_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["--out", str(tmp_path / "schema.json")]) == 0
    assert (tmp_path / "schema.json").read_text() == capsys.readouterr().out
