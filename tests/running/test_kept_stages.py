"""What a run leaves on disk: the model of every stage or of the last alone, and `model/` without a second copy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.slow import cases
from tests.helpers.tiny_task import CHANNELS, CLASSES, TinyTask
from toolkit import Measure, Recipe, Reinitialise, load_model, run
from toolkit.base import files
from toolkit.base.files import link_folder
from toolkit.recipe.recipe import KeepStages
from toolkit.sweeping.settings import Sweep

MEASURE = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation",))
WIDE = 1660  # two square layers of this width take 22 MB


class WideNet(nn.Module):
    """[B, TOKENS, CHANNELS] -> logits [B, TOKENS, CLASSES], with one block of 22 MB of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(CHANNELS, WIDE), nn.Linear(WIDE, CLASSES)
        self.block = nn.Sequential(nn.Linear(WIDE, WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.block(x))


class WideTask(TinyTask):
    name, examples = "wide", 2

    def __init__(self) -> None:
        torch.manual_seed(5)
        self._weights = WideNet().state_dict()

    def build_model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return WideNet()


def bytes_on_disk(folder: Path) -> int:
    """Returns the bytes of all files in a folder; what has several names is counted once."""
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum({status.st_ino: status.st_size for status in found}.values())


def recipe_of(task: TinyTask, keep: KeepStages, *stages: Any) -> Recipe:
    return Recipe(name="kept", task=task.name, stages=stages, measure=MEASURE, keep_stages=keep)


@pytest.mark.parametrize("keep", cases(("last", "all"), in_suite=("last",)))
def test_a_run_of_22_mb(keep: KeepStages, tmp_path: Path) -> None:
    most = {"last": 1.1, "all": 2.1}[keep]
    task = WideTask()
    torch.save(task._weights, tmp_path / "dense.pt")
    dense = (tmp_path / "dense.pt").stat().st_size
    assert dense > 22e6
    run(recipe_of(task, keep, Reinitialise(), Reinitialise()), task=task, out=tmp_path / "run")
    assert most - 0.11 < bytes_on_disk(tmp_path / "run") / dense < most
    load_model(tmp_path / "run", task.build_model())


@pytest.mark.parametrize("keep", ["all", "last"])
def test_the_model_is_the_last_stage(keep: KeepStages, tmp_path: Path, tiny_task: TinyTask) -> None:
    drawn = Reinitialise()
    out = tmp_path / "run"
    run(recipe_of(tiny_task, keep, drawn, drawn), task=tiny_task, out=out)
    kept = ["01-reinitialise", "02-reinitialise"]
    assert sorted(path.name for path in (out / "stages").iterdir()) == (kept if keep == "all" else kept[-1:])
    for name in ("model.json", "model.safetensors"):
        assert os.path.samefile(out / "model" / name, out / "stages" / kept[-1] / name)
    load_model(out, tiny_task.build_model())
    assert ("keep_stages: last" in (out / "recipe.resolved.yaml").read_text()) == (keep == "last")


def test_a_stopped_run_goes_on_from_the_one_model_that_it_kept(
    tmp_path: Path, tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Reinitialise()
    recipe, out = recipe_of(tiny_task, "last", drawn, drawn), tmp_path / "run"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("toolkit.running.runner.link_folder", stop)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, task=tiny_task, out=out)
    assert [path.name for path in (out / "stages").iterdir()] == ["02-reinitialise"]
    assert run(recipe, task=tiny_task, out=out, resume=True).finished
    load_model(out, tiny_task.build_model())


def test_a_run_without_stages_keeps_the_model(tmp_path: Path, tiny_task: TinyTask) -> None:
    run(recipe_of(tiny_task, "last"), task=tiny_task, out=tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    model, dense = load_model(tmp_path / "run", tiny_task.build_model()), tiny_task.load_baseline()
    (inputs,) = tiny_task.example_inputs(2)
    torch.testing.assert_close(model(inputs), dense(inputs), rtol=0, atol=0)


def test_the_default_leaves_the_hash_as_it_was() -> None:
    recipe = Recipe(name="kept", task="tiny", stages=())
    assert "keep_stages" not in recipe.model_dump(mode="json")
    assert recipe.sha256 != recipe.model_copy(update={"keep_stages": "last"}).sha256


def test_a_sweep_hands_it_to_its_runs() -> None:
    content = {"name": "s", "seeds": [{"seed": 0, "task": "tad-watch"}], "variants": {"a": []}, "keep_stages": "last"}
    assert [cell.keep_stages for _, cell in Sweep.model_validate(content).cells()] == ["last"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_linked_folder(has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    if not has_links:
        monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("new")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").write_text("old")
    link_folder(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["x"]
    assert os.path.samefile(tmp_path / "a" / "x", tmp_path / "b" / "x") == has_links
    assert (tmp_path / "b" / "x").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
