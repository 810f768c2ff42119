"""Every YAML file under recipes/ is loaded as what it is, and every stage is used by one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from toolkit.benchmarks.zoo_matrix.settings import read_matrix
from toolkit.recipe.read import load_recipe
from toolkit.stages.registry import STAGES
from toolkit.stages.settings import Stage
from toolkit.sweeping.settings import read_sweep
from toolkit.train import read_train_config

FOLDER = Path(__file__).parents[2] / "recipes"

READERS: dict[str, Callable[[Path], BaseModel]] = {
    ".": load_recipe,
    "train": read_train_config,
    "sweeps": read_sweep,
    "matrix": read_matrix,
}

FILES = sorted(path.relative_to(FOLDER) for path in FOLDER.rglob("*.y*ml"))


def stages_in(value: object) -> Iterator[BaseModel]:
    """Yields every stage within a model, lists and mappings of models included."""
    if isinstance(value, get_args(get_args(Stage)[0])):
        yield value
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from stages_in(part)


@pytest.mark.parametrize("kind", READERS)
def test_every_kind_has_a_file(kind: str) -> None:
    assert [path for path in FILES if path.parent.as_posix() == kind]


def test_every_file_is_of_a_kind() -> None:
    assert {path.parent.as_posix() for path in FILES} == set(READERS)
    assert {path.suffix for path in FILES} == {".yaml"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_file_is_valid(path: Path) -> None:
    assert READERS[path.parent.as_posix()](FOLDER / path)


def test_every_stage_has_an_apply_function_and_no_other() -> None:
    assert set(STAGES) == {kind_of(stage) for stage in get_args(get_args(Stage)[0])}


def test_every_stage_is_used_by_a_file() -> None:
    loaded = [READERS[path.parent.as_posix()](FOLDER / path) for path in FILES]
    used = {kind_of(type(stage)) for settings in loaded for stage in stages_in(settings)}
    assert used == set(STAGES)


def kind_of(stage: type[BaseModel]) -> str:
    return str(stage.model_fields["type"].default)
