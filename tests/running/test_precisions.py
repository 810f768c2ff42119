"""A run that is timed in several precisions and runtimes, from the recipe to the page; and memory that is too small."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reports.comparison.runs import costs_of, load_runs, points_of
from reports.run.closing import closing_table
from reports.run.tables import stages_table
from reports.sweep.rows import sweep_rows
from tests.helpers.tiny_task import TinyTask
from toolkit.base.console import Console
from toolkit.base.errors import RecordError, UserError
from toolkit.measure.results import MeasurementKey
from toolkit.recipe.compose import compose
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.record.run import RunRecord, load_record
from toolkit.running.measuring import latency_keys
from toolkit.running.runner import run
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.evaluate import evaluate


def recipe(name: str = "x", **asked: Any) -> Recipe:
    measure = {"batch_sizes": (2, 1), "threads": 1, "repeats": 3, "warmup": 0, "splits": ("test",)} | asked
    return compose(
        task="tiny",
        name=name,
        depth=BlockDrop(num_blocks=1, criterion="block_mse"),
        measure=Measure.model_validate(measure),
    )


BOTH = ("bfloat16", "float32")

FIRST = MeasurementKey(device="cpu", precision="bfloat16", batch_size=2)


@pytest.fixture(scope="module")
def made(tiny_task: TinyTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "both"
    with open(out.parent / "log", "w", encoding="utf-8") as log:
        run(recipe(precisions=BOTH), task=tiny_task, out=out, console=Console(log))
    return out


def test_every_key_has_a_latency_after_every_step(made: Path) -> None:
    record = load_record(made)
    keys = latency_keys(record.recipe)
    assert [key.words for key in keys] == [
        "cpu bfloat16 batch 2",
        "cpu bfloat16 batch 1",
        "cpu batch 2",
        "cpu batch 1",
    ]
    for step in record.steps:
        assert list(step.measurement.latency_keys) == keys
        assert [one.dtype for one in step.measurement.latency] == ["bfloat16"] * 2 + ["float32"] * 2
    assert record.recipe.latency_shown == FIRST


def test_pages_and_tables_tell_them_apart(made: Path) -> None:
    record = load_record(made)
    columns, rows = closing_table(record)
    keys, last = latency_keys(record.recipe), record.steps[1].measurement
    assert columns[3:7] == [f"latency {key.words}" for key in keys]
    assert rows[1][3:7] == [f"{one.ratio:.3f}" for key in keys if (one := last.latency_at(key))]
    text = str(stages_table(record))
    assert "latency, cpu bfloat16, batch 2" in text and "latency, cpu, batch 2" in text
    (one,) = load_runs([made], "test")
    assert [cost.key for cost in costs_of(record.baseline.measurement)][2:] == [
        f"latency_ratio_{key.text}" for key in keys
    ]
    assert points_of(one, "test")[0].costs[f"latency_ratio_{keys[3].text}"] == last.latency[3].ratio


def test_a_sweep_shows_the_first_precision(made: Path) -> None:
    record = load_record(made)
    shown = [step.measurement.latency_at(FIRST) for step in record.steps]
    assert [row.latency for row in sweep_rows({"x/seed0": record})] == [[one.ratio] for one in shown if one]


def test_runs_of_other_precisions_are_not_compared(
    made: Path, tiny_task: TinyTask, tmp_path: Path, quiet: Console
) -> None:
    run(recipe(), task=tiny_task, out=tmp_path / "one", console=quiet)
    with pytest.raises(RecordError, match=r"precisions: \('bfloat16', 'float32'\) against \('float32',\)"):
        load_runs([made, tmp_path / "one"], "test")


def test_what_only_the_other_device_cannot_do_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    asked = recipe(precisions=("float32", "tf32"), runtimes=("eager", "cuda_graph"), batch_sizes=(1,))
    keys = latency_keys(asked.model_copy(update={"device": "cuda"}))
    assert [key.words for key in keys] == [
        "cuda batch 1",
        "cuda tf32 batch 1",
        "cuda_graph cuda batch 1",
        "cuda_graph cuda tf32 batch 1",
        "cpu batch 1",
    ]


def test_a_recipe_from_python_is_refused_before_any_work(tiny_task: TinyTask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'^measure.precisions.0: "tf32" needs a CUDA device'):
        run(recipe(precisions=("tf32",)), task=tiny_task, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_peak_memory_is_shown_where_it_was_counted(made: Path, tmp_path: Path) -> None:
    """As on CUDA: 5 MiB of 10 at one key, nothing at the others."""
    record = load_record(made)
    counted = with_peaks(record, FIRST, 5 * 2**20, 10 * 2**20)
    columns, rows = closing_table(counted)
    assert columns[7] == "peak memory cpu bfloat16 batch 2" and rows[1][7] == "5.0 MiB (0.500)"
    assert len(closing_table(record)[0]) == len(columns) - 1
    tmp_path.joinpath("x").mkdir()
    counted.save(tmp_path / "x")
    assert load_record(tmp_path / "x") == counted
    text = str(stages_table(counted))
    assert "peak memory, cpu bfloat16, batch 2" in text and "× 0.50 of dense" in text
    assert "peak memory" not in str(stages_table(record))


def with_peaks(record: RunRecord, key: MeasurementKey, peak: int, dense: int) -> RunRecord:
    steps = []
    for step in record.steps:
        latency = tuple(
            one.model_copy(update={"peak_bytes": peak, "dense_peak_bytes": dense}) if one.key == key else one
            for one in step.measurement.latency
        )
        steps.append(step.model_copy(update={"measurement": step.measurement.model_copy(update={"latency": latency})}))
    return record.model_copy(update={"steps": tuple(steps)})


def full(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Fills(nn.Module):
    """Runs as long as no more than `most` examples come at once."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def forward(self, x: Tensor) -> Any:
        return self.model(x) if len(x) <= self.most else full()


def test_evaluation_that_runs_out_of_memory_names_its_batch_size(tiny_task: TinyTask) -> None:
    model = Fills(tiny_task.load_baseline(), 16)
    with pytest.raises(
        UserError, match=r"^evaluating the test split: the device is out of memory at batch size 32; that"
    ):
        evaluate(tiny_task, model, "test")
    assert not model._forward_pre_hooks


def test_a_stage_that_runs_out_of_memory_names_its_batch_size(
    tiny_task: TinyTask, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_task, "loss", full, raising=False)
    asked = recipe().model_copy(update={"stages": (BlockDrop(num_blocks=1, criterion="loss"),)})
    with pytest.raises(UserError, match=r"^stage 0 block_drop: the device is out of memory at batch size 16; use"):
        run(asked, task=tiny_task, out=tmp_path / "out", console=quiet)
    asked = recipe().model_copy(update={"stages": (Recover(max_steps=2, batch_size=7),)})
    with pytest.raises(UserError, match=r"out of memory at batch size 7; give a smaller batch_size$"):
        run(asked, task=tiny_task, out=tmp_path / "other", console=quiet)


def test_timing_that_runs_out_of_memory_names_its_batch_size(
    tiny_task: TinyTask, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_task, "evaluation_batch", 2)
    asked = recipe(batch_sizes=(1, 64))
    baseline = tiny_task.load_baseline()
    for method in ("load_baseline", "build_model"):
        monkeypatch.setattr(tiny_task, method, lambda: Fills(copy.deepcopy(baseline), 16))
    with pytest.raises(UserError, match=r"^timing on cpu: the device is out of memory at batch size 64; time smaller"):
        run(asked, task=tiny_task, out=tmp_path / "out", console=quiet)
