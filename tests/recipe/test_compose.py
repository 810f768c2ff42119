"""compose() gives the families, and the recipes on disk are its output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.recipe.compose import compose
from toolkit.recipe.read import load_recipe
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.glob("*.yaml"))
DEPTH = BlockDrop(num_blocks=3, criterion="loss")
WIDTH = ChannelPrune(keep=Keep(mlp=0.25))
RECOVER = Recover(max_steps=300, patience=3)
FAMILIES = {
    "depth_only": compose(task="tad-watch", depth=BlockDrop(num_blocks=5, criterion="loss"), recover=RECOVER),
    "width_only": compose(task="tad-watch", width=ChannelPrune(keep=Keep(mlp=0.25, heads=0.5)), recover=RECOVER),
    "depth_then_width": compose(task="tad-watch", depth=DEPTH, width=WIDTH, recover=RECOVER),
    "width_then_depth": compose(task="tad-watch", depth=DEPTH, width=WIDTH, recover=RECOVER, order="width_then_depth"),
    "depth_then_width_training_free": compose(
        task="tad-watch", depth=DEPTH, width=WIDTH, name="depth_then_width_training_free"
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_recipe_on_disk_equals_compose(name: str) -> None:
    assert load_recipe(FOLDER / f"{name}.yaml") == FAMILIES[name]


def test_order_and_family() -> None:
    assert FAMILIES["depth_then_width"].stages == (DEPTH, WIDTH, RECOVER)
    assert FAMILIES["width_then_depth"].stages == (WIDTH, DEPTH, RECOVER)
    families = {name: recipe.family for name, recipe in FAMILIES.items()}
    assert (families["depth_only"], families["width_only"], families["width_then_depth"]) == (
        "depth",
        "width",
        "combined",
    )


def test_settings_are_passed_on() -> None:
    measure = Measure(batch_sizes=(2,))
    recipe = compose(task="mine", depth=[DEPTH, DEPTH], name="twice", seed=7, device="cuda", measure=measure)
    expected = Recipe(name="twice", task="mine", seed=7, device="cuda", stages=(DEPTH, DEPTH), measure=measure)
    assert recipe == expected


def test_nothing_to_compose() -> None:
    with pytest.raises(ValueError, match="nothing to compose: give depth"):
        compose(task="tad-watch", recover=RECOVER)
    with pytest.raises(ValueError, match="nothing to compose"):
        compose(task="tad-watch", depth=[], width=[])


def test_unknown_order() -> None:
    with pytest.raises(ValueError, match="choose depth_then_width or width_then_depth"):
        compose(task="tad-watch", depth=DEPTH, order="both")  # type: ignore[arg-type]


def test_catalogue_lists_what_is_on_disk() -> None:
    listed = re.findall(r"^\| `([^`]+)` \| (\w+) \|", (FOLDER / "README.md").read_text(), flags=re.MULTILINE)
    assert listed
    assert sorted(listed) == [(file.name, load_recipe(file).family) for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_recipe_starts_with_command_time_and_expectation(file: Path) -> None:
    head = file.read_text().split("version:")[0].splitlines()
    assert all(line.startswith("# ") for line in head)
    assert head[1] == f"# Command: python -m toolkit.apply recipes/{file.name}"
    assert head[2].startswith("# Time:    about ")
    assert head[3].startswith("# Expect:  ")
    assert load_recipe(file).name == file.stem
