"""The loop: records, checks after each stage, resuming, and folders that must not be overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.helpers.records import without_times
from tests.helpers.tiny_task import TinyTask
from toolkit import load_model, run
from toolkit.base.console import Console
from toolkit.base.errors import RecipeError, RecordError, StageError, UserError
from toolkit.measure.macs import count_macs
from toolkit.recipe.compose import compose
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.run import load_record
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.stages.registry import STAGES

MEASURE = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)
RECIPE = compose(
    task="tiny",
    depth=BlockDrop(num_blocks=1, criterion="loss"),
    width=ChannelPrune(keep=Keep(mlp=0.5, heads=0.5)),
    recover=Recover(max_steps=4, validate_every=2, batch_size=8, warmup_steps=1),
    measure=MEASURE,
)


@pytest.fixture(scope="module")
def finished(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(RECIPE, task=tiny_task, out=out)
    return out


def test_every_step_is_recorded_and_measured(finished: Path, tiny_task: TinyTask) -> None:
    record = load_record(finished)
    assert record.finished
    assert [step.stage for step in record.steps] == ["baseline", "block_drop", "channel_prune", "recover"]
    macs = [step.measurement.macs.total for step in record.steps]
    assert macs[0] > macs[1] > macs[2] == macs[3]
    dense = tiny_task.load_baseline()
    assert macs[0] == count_macs(dense, tiny_task.example_inputs(1)).total
    assert record.baseline.measurement.num_params == sum(p.numel() for p in dense.parameters())
    for step in record.steps:
        assert [quality.split for quality in step.measurement.quality] == ["validation", "test"]
        assert len(step.measurement.latency[0].samples_s) == 3
    assert len(record.steps[3].detail["curve"]) == 2
    assert (finished / "recipe.resolved.yaml").read_text().startswith("version: 1\n")


def test_the_saved_model_is_the_measured_one(finished: Path, tiny_task: TinyTask) -> None:
    """The manifest's shapes, the module's shapes and fvcore's count agree after every stage."""
    record = load_record(finished)
    folders = sorted((finished / "stages").iterdir())
    assert [folder.name for folder in folders] == ["01-block_drop", "02-channel_prune", "03-recover"]
    for folder, step in zip([*folders, finished / "model"], [*record.steps[1:], record.steps[-1]], strict=True):
        model = load_model(folder, tiny_task.build_model())
        manifest = json.loads((folder / "model.json").read_text())
        shapes = {name: tuple(entry["shape"]) for name, entry in manifest["tensors"].items()}
        assert shapes == {name: tuple(value.shape) for name, value in model.state_dict().items()}
        assert count_macs(model, tiny_task.example_inputs(1)) == step.measurement.macs
        assert tiny_task.evaluate(model, "test") == step.measurement.quality_on("test")


class Stop(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("stage", ["block_drop", "channel_prune", "recover"])
def test_a_stopped_run_resumes_to_the_same_record(
    stage: str, finished: Path, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Stop

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setitem(STAGES, stage, killed)
        with pytest.raises(Stop):
            run(RECIPE, task=tiny_task, out=out)
    index = ["block_drop", "channel_prune", "recover"].index(stage)
    assert len(load_record(out).steps) == index + 1
    (out / "stages" / f"{index + 1:02d}-{stage}").mkdir(parents=True)  # a leftover of the killed stage
    run(RECIPE, task=tiny_task, out=out, resume=True)
    assert without_times(load_record(out)) == without_times(load_record(finished))


def test_nothing_is_overwritten(finished: Path, tiny_task: TinyTask, tmp_path: Path) -> None:
    before = (finished / "run.json").read_bytes()
    with pytest.raises(UserError, match="exists already; continue that run with --resume"):
        run(RECIPE, task=tiny_task, out=finished)
    with pytest.raises(RecordError, match="another recipe"):
        run(RECIPE.model_copy(update={"seed": 1}), task=tiny_task, out=finished, resume=True)
    assert run(RECIPE, task=tiny_task, out=finished, resume=True).finished
    assert (finished / "run.json").read_bytes() == before
    with pytest.raises(UserError, match="nothing to resume"):
        run(RECIPE, task=tiny_task, out=tmp_path, resume=True)


def test_a_task_without_its_data_leaves_no_run_behind(tiny_task: TinyTask, tmp_path: Path) -> None:
    """The same command runs once the data are there."""

    class Missing(TinyTask):
        def load_baseline(self) -> torch.nn.Module:
            raise UserError("no data here")

    out = tmp_path / "run"
    with pytest.raises(UserError, match="no data here"):
        run(RECIPE, task=Missing(), out=out)
    assert run(RECIPE.model_copy(update={"stages": RECIPE.stages[:1]}), task=tiny_task, out=out).finished


@pytest.mark.parametrize("damage", ["truncated", "edited", "junk", "empty"])
def test_a_damaged_record_is_refused_and_left_alone(
    damage: str, finished: Path, tiny_task: TinyTask, tmp_path: Path
) -> None:
    text = (finished / "run.json").read_bytes()
    changed = {
        "truncated": text[: len(text) // 2],
        "edited": text.replace(b'"seed":0', b'"seed":5').replace(b'"seed": 0', b'"seed": 5'),
        "junk": b"\x00\xff\xfe",
        "empty": b"",
    }[damage]
    assert changed != text
    (tmp_path / "run.json").write_bytes(changed)
    with pytest.raises(RecordError, match=r"run\.json"):
        run(RECIPE, task=tiny_task, out=tmp_path, resume=True)
    assert (tmp_path / "run.json").read_bytes() == changed


def recipe_of(*stages: Any) -> Recipe:
    return Recipe(name="r", task="tiny", seed=0, device="cpu", stages=stages, measure=MEASURE)


def test_a_stage_that_changes_nothing_is_an_error_unless_allowed(tiny_task: TinyTask, tmp_path: Path) -> None:
    cut = ChannelPrune(keep=Keep(mlp=0.5), repair="none")
    wide = ChannelPrune(keep=Keep(mlp=0.45), round_to=16, repair="none")  # rounds to the same 16 channels
    with pytest.raises(StageError, match="channel_prune: the stage changed nothing") as caught:
        run(recipe_of(cut, wide), task=tiny_task, out=tmp_path / "refused")
    assert caught.value.stage_index == 1
    allowed = wide.model_copy(update={"allow_no_change": True})
    record = run(recipe_of(cut, allowed), task=tiny_task, out=tmp_path / "allowed")
    assert record.steps[1].measurement.macs == record.steps[2].measurement.macs


@pytest.mark.parametrize(
    ("fault", "message"),
    [("nan", "not finite"), ("training", "training mode"), ("shape", "outputs changed shape")],
)
def test_a_stage_that_breaks_the_model_is_caught(
    fault: str, message: str, tiny_task: TinyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: nn.Module, *_: object) -> tuple[nn.Module, dict[str, object]]:
        if fault == "training":
            model.train()
        elif fault == "shape":
            model.head = nn.Linear(16, 4)
        else:
            torch.nn.init.constant_(model.head.bias, float("nan"))
        return model, {}

    monkeypatch.setitem(STAGES, "block_drop", broken)
    with pytest.raises(StageError, match=message):
        run(recipe_of(BlockDrop(num_blocks=1)), task=tiny_task, out=tmp_path / "run")


def test_recipes_are_checked_before_anything_runs(tmp_path: Path) -> None:
    unknown = compose(task="no-such-task", depth=BlockDrop(num_blocks=1))
    with pytest.raises(RecipeError, match="tad-watch"):
        run(unknown, out=tmp_path / "run")
    too_many = compose(task="tad-watch", depth=BlockDrop(num_blocks=12))
    with pytest.raises(RecipeError, match="leaves no block"):
        run(too_many, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens on a machine without CUDA")
def test_cuda_that_is_not_there(tiny_task: TinyTask, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"device": "cuda"})
    with pytest.raises(UserError, match="no CUDA device here"):
        run(recipe, task=tiny_task, out=tmp_path / "run")


def test_the_callers_random_state_comes_back(tiny_task: TinyTask, tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    run(
        recipe_of(BlockDrop(num_blocks=1, criterion="block_mse")),
        task=tiny_task,
        out=tmp_path / "run",
        console=Console(),
    )
    assert torch.equal(torch.rand(3), expected)
