"""--seed, --device and --set change values of a file: checked like the file, named in faults, written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import apply, load_recipe, sweep
from toolkit.base.errors import UserError
from toolkit.recipe.changes import changed, changes_of
from toolkit.sweeping.settings import read_sweep

RECIPE = """\
version: 1
name: r
task: tad-watch
seed: 0
device: cpu
stages:
  - {type: block_drop, num_blocks: 2, criterion: loss}
  - {type: channel_prune, widths: {blocks.0.mlp: 64}}
measure: {batch_sizes: [1]}
"""

SWEEP = """\
version: 1
name: s
device: cpu
seeds: [{seed: 0, task: tad-watch}, {seed: 1, task: tad-watch}]
variants:
  drop: [{type: block_drop, num_blocks: 1, criterion: loss}]
measure: {batch_sizes: [1]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def with_set(*words: str) -> list[str]:
    return [part for word in words for part in ("--set", word)]


def test_the_resolved_recipe_holds_the_changes(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stages.0.num_blocks=4", "stages.1.widths.blocks.0.mlp=32", 'stages.1.widths."blocks.1.mlp"=48']
    words += ["measure.batch_sizes=[2, 4]", "measure.repeats=7", "name=other"]
    assert apply.main([str(file), "--check", "--seed", "5", *with_set(*words)]) == 0
    written = tmp_path / "written.yaml"
    written.write_text(capsys.readouterr().out)
    recipe = load_recipe(written)
    drop, prune = (stage.model_dump() for stage in recipe.stages)
    assert (recipe.seed, recipe.name, drop["num_blocks"]) == (5, "other", 4)
    assert prune["widths"] == {"blocks.0.mlp": 32, "blocks.1.mlp": 48}
    assert (recipe.measure.batch_sizes, recipe.measure.repeats) == ((2, 4), 7)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "-1"], "--seed -1: seed: -1 is out of range: must be at least 0"),
        (["--seed", "x"], '--seed x: seed: must be a whole number, not the text "x"'),
        (["--seed", "1.0"], "--seed 1.0: seed: must be a whole number, not 1.0"),
        (["--seed", " "], "--seed  : gives no value; write null for an empty one"),
        (
            ["--seed", "1", "--set", "seed=2"],
            "--set seed=2: the same place is given by --seed 1; give it once",
        ),
        (
            with_set("stages.0.num_blocks=0"),
            "--set stages.0.num_blocks=0: stages.0.num_blocks: 0 is out of range: must be at least 1",
        ),
        (
            with_set("stages.0.num_blocks=12"),
            "--set stages.0.num_blocks=12: stages.0.num_blocks: 12 leaves no block: tad-watch has 12",
        ),
        (
            with_set("stages.0.num_block=1"),
            "--set stages.0.num_block=1: stages.0.num_block: unknown key; did you mean 'num_blocks'? the keys",
        ),
        (
            with_set("stages.0={type: block_dop}"),
            '--set stages.0={type: block_dop}: stages.0.type: "block_dop" is not a choice; did you mean',
        ),
        (
            with_set("stages.2.num_blocks=1"),
            "--set stages.2.num_blocks=1: stages is a list and has no place 2; its places are 0 to 1",
        ),
        (with_set("stages.x=1"), "--set stages.x=1: stages is a list and has no place x; its places are 0 to 1"),
        (with_set("name.x=1"), "--set name.x=1: name is text, which holds no other values"),
        (with_set("seed"), "--set seed: is no PLACE=VALUE; write one such as stages.0.num_blocks=4"),
        (with_set("=1"), "--set =1: is no PLACE=VALUE; write one such as stages.0.num_blocks=4"),
        (with_set("measure..repeats=1"), "--set measure..repeats=1: measure..repeats is no place; join keys by dots"),
        (with_set("seed="), "--set seed=: gives no value; write null for an empty one"),
        (with_set("seed=[1"), "--set seed=[1: not valid YAML: "),
        (with_set("seed=&a 1"), "--set seed=&a 1: anchors, aliases and merge keys"),
        (
            with_set("measure={repeats: 3, repeats: 4}"),
            "--set measure={repeats: 3, repeats: 4}: repeats: duplicate key",
        ),
        (with_set("seed=1", "seed=2"), "--set seed=2: the same place is given by --set seed=1; give it once"),
    ],
)
def test_a_change_that_cannot_be_is_one_sentence(
    words: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apply.main([str(file), "--check", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_the_fault_that_the_file_has_is_gone_with_its_value(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(RECIPE.replace("num_blocks: 2", "num_blocks: 99").replace("seed: 0", "seed: -3"))
    assert apply.main([str(file), "--check", "--set", "stages.0.num_blocks=3"]) == 2
    assert capsys.readouterr().err.startswith(f"{file}:4: seed: -3 is out of range")
    assert apply.main([str(file), "--check", "--set", "stages.0.num_blocks=3", "--seed", "3"]) == 0


def test_a_change_of_what_is_empty_or_missing_makes_it() -> None:
    content: dict[str, Any] = {"model": None, "measure": {"repeats": 3}}
    words = ["model.name=timm/x", "task.type=images", "measure.repeats=4"]
    assert changed(content, changes_of(words)) == {
        "model": {"name": "timm/x"},
        "measure": {"repeats": 4},
        "task": {"type": "images"},
    }
    assert content == {"model": None, "measure": {"repeats": 3}}, "what was read is left alone"


def test_a_sweep_is_changed_and_checked_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    cells = dict(read_sweep(file, changes=changes_of(["variants.drop.0.num_blocks=4"])).cells())
    assert [cell.stages[0].model_dump()["num_blocks"] for cell in cells.values()] == [4, 4]
    words = [str(file), "--out", str(tmp_path / "out")]
    assert sweep.main([*words, "--set", "variants.drop.0.num_blocks=12"]) == 2
    place = "--set variants.drop.0.num_blocks=12: variants.drop.0.num_blocks: "
    assert capsys.readouterr().err.startswith(f"{place}12 leaves no block: tad-watch has 12")
    assert sweep.main([*words, "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "--seed -1: seed: -1 is out of range: must be at least 0\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("seed", "task"), [(1, "tad-watch"), (7, "tad-watch")])
def test_the_seed_of_a_sweep_is_its_only_one(seed: int, task: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP)
    (given,) = changes_of([f"seed={seed}"])
    (cell,) = read_sweep(file, seed=given).cells()
    assert (cell[0], cell[1].seed, cell[1].task) == (f"drop/seed{seed}", seed, task)


def test_a_seed_goes_with_its_own_baseline(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SWEEP.replace("{seed: 1, task: tad-watch}", "{seed: 1, task: har-windows}"))
    (cell,) = read_sweep(file, seed=changes_of(["seed=1"])[0]).cells()
    assert cell[1].task == "har-windows"
    with pytest.raises(UserError, match="has a task for each of its seeds, and these are: 0, 1"):
        read_sweep(file, seed=changes_of(["seed=2"])[0])
