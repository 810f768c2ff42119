"""Recipes and sweeps with a model of a zoo: faults with their lines, the estimate, and where weights are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import toolkit
from toolkit import BlockDrop, ChannelPrune, Keep, ZooModel, compose
from toolkit.apply import main
from toolkit.base.errors import RecipeError
from toolkit.recipe.check import check
from toolkit.recipe.estimate import estimate_s
from toolkit.recipe.read import dump_recipe, load_recipe
from toolkit.sweeping.settings import read_sweep
from toolkit.tasks.cards import TASKS

TEXT = """\
version: 1
name: mine
task: zoo
seed: 0
device: cpu
model:
  name: timm/test_vit
  arguments:
    img_size: 64
  weights: mine.safetensors
stages:
  - type: block_drop
    num_blocks: 1
measure:
  batch_sizes: [1]
"""
SWEEP = """\
version: 1
name: little
device: cpu
model: {name: timm/test_vit}
seeds:
  - {seed: 0, task: zoo}
  - {seed: 1, task: zoo}
variants:
  drop:
    - {type: block_drop, num_blocks: 1}
measure: {batch_sizes: [1]}
"""


MODEL = TEXT[TEXT.index("model:") : TEXT.index("stages:")]
SIZE, WEIGHTS, ARGUMENTS = "    img_size: 64", "  weights: mine.safetensors", "model.arguments"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_read_and_written(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, TEXT))
    assert recipe.model == ZooModel(name="timm/test_vit", arguments={"img_size": 64}, weights="mine.safetensors")
    assert load_recipe(write(tmp_path, dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        (MODEL, "", [(None, "model")]),
        ("task: zoo", "task: tad-watch", [(6, "model")]),
        ("timm/test_vit", "resnet18", [(7, "model.name")]),
        (
            SIZE,
            "    pretrained: 1\n    cache_dir: /tmp",
            [(9, f"{ARGUMENTS}.pretrained"), (10, f"{ARGUMENTS}.cache_dir")],
        ),
        (SIZE, "    img_size: [64, [64]]", [(9, f"{ARGUMENTS}.img_size")]),
        (SIZE, "    img_size: {a: 1}", [(9, f"{ARGUMENTS}.img_size")]),
        (SIZE, "    img_size: .nan", [(9, f"{ARGUMENTS}.img_size")]),
        (WEIGHTS, "  weight: mine.safetensors", [(10, "model.weight")]),
        (WEIGHTS, "  input_size: big\n  examples: 1", [(10, "model.input_size"), (11, "model.examples")]),
        ("  name: timm/test_vit\n", "", [(6, "model.name")]),
        ("seed: 0", "seed: x\nno: 1", [(4, "seed"), (5, "no")]),
        (
            "device: cpu\nmodel:\n  name: timm/test_vit",
            "device: x\nmodel:\n  name: x",
            [(5, "device"), (7, "model.name")],
        ),
    ],
)
def test_faults_have_their_lines(old: str, new: str, faults: list[tuple[int | None, str]], tmp_path: Path) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, TEXT.replace(old, new)))
    assert [fault.place for fault in caught.value.faults] == [place for _, place in faults]
    if faults[0][0] is not None:
        assert [fault.line for fault in caught.value.faults] == [line for line, _ in faults]


def test_what_depends_on_the_model_is_not_checked_beforehand() -> None:
    model = ZooModel(name="timm/test_vit")
    recipe = compose(task="zoo", depth=BlockDrop(num_blocks=99), width=ChannelPrune(keep=Keep(heads=0.5)), model=model)
    assert check(recipe, TASKS["zoo"]) == []
    assert estimate_s(recipe, TASKS["zoo"]) is None


def test_check_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without building anything: the weights need not be there yet."""
    assert main([str(write(tmp_path, TEXT)), "--check"]) == 0
    shown = capsys.readouterr().out
    assert "Estimated run time: depends on the model. Nothing was run." in shown
    assert load_recipe(write(tmp_path, shown)) == load_recipe(write(tmp_path, TEXT))


def test_weights_are_looked_for_beside_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    file = write(folder, TEXT)
    monkeypatch.chdir(tmp_path)
    assert main([str(file.relative_to(tmp_path)), "--out", "out"]) == 2
    assert "recipes/mine.safetensors: cannot be read" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_sweep_over_a_zoo_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = read_sweep(write(tmp_path, SWEEP))
    assert [recipe.model for _, recipe in sweep.cells()] == [ZooModel(name="timm/test_vit")] * 2
    with pytest.raises(RecipeError) as caught:
        read_sweep(write(tmp_path, SWEEP.replace("timm/test_vit", "timm/a b").replace("1, task: zoo", "0, task: zoo")))
    assert [fault.place for fault in caught.value.faults] == ["model.name", "seeds.1.seed"]


def test_the_python_way_is_checked_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"task": "zoo", "depth": BlockDrop(num_blocks=1)}
    with pytest.raises(RecipeError, match="task zoo needs a model"):
        toolkit.run(compose(**settings), out=tmp_path / "run")
    model = ZooModel(name="timm/test_vit", arguments={"pretrained": True})
    with pytest.raises(RecipeError, match=r"model\.arguments\.pretrained"):
        toolkit.run(compose(**settings, model=model), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
