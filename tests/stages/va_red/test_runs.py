"""Dynamic layers in whole runs: beside other stages in any order, killed and resumed, in the record and on the page."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reports.run.dynamic_figure import draw_input_macs
from reports.run.page import write_page
from tests.helpers.conv_nets import conv_task
from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.checkpoint.load import load_model
from toolkit.measure.macs import count_macs
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.running.measuring import measure
from toolkit.running.runner import run
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.recover.settings import Recover
from toolkit.stages.settings import Stage
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.decisions import dynamic_layers
from toolkit.tasks.classification import ClassificationTask
from toolkit.tasks.task import Batch, Split, Strata

CONSTANT = VaRed(scope="constant", macs_ratio=0.4)
LITTLE = VaRed(scope="constant", macs_ratio=0.15)
GATED = VaRed(max_steps=60, validate_every=30, hidden=4, batch_size=8)
DROP = BlockDrop(num_blocks=1, criterion="loss")
CUT = ChannelPrune(keep=Keep(conv=0.5), round_to=1)
RECOVER = Recover(max_steps=2, validate_every=2, warmup_steps=0)


def recipe_of(*stages: Stage) -> Recipe:
    measure = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation", "test"))
    return Recipe(name="dynamic", task="clips", seed=1, device="cpu", stages=stages, measure=measure)


@pytest.mark.parametrize(
    "stages",
    [(DROP, CONSTANT), (CONSTANT, DROP), (CUT, CONSTANT), (DROP, CUT, LITTLE), (CONSTANT, RECOVER)],
    ids=lambda stages: "-".join(stage.type for stage in stages),
)
def test_it_stands_before_and_behind_other_stages(stages: tuple[Stage, ...], tmp_path: Path, quiet: Console) -> None:
    task = conv_task(3)
    record = run(recipe_of(*stages), task=task, out=tmp_path / "run", console=quiet)
    model = load_model(tmp_path / "run", task.build_model())
    assert dynamic_layers(model)
    assert record.steps[-1].measurement.macs.total == count_macs(model, task.example_inputs(1)).total
    outputs = model(*task.example_inputs(3))
    assert outputs.shape == (3, 3) and bool(outputs.isfinite().all())


def test_channels_behind_it_are_refused_with_the_reason(tmp_path: Path, quiet: Console) -> None:
    with pytest.raises(StageError, match="cut channels before that stage"):
        run(recipe_of(LITTLE, CUT), task=conv_task(3), out=tmp_path / "run", console=quiet)


class KilledConvTask:
    """Its process ends when the n-th training batch is asked for."""

    def __init__(self, task: ClassificationTask, killed_at: int) -> None:
        self._task, self._killed_at = task, killed_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        yield from itertools.islice(self._task.train_batches(batch_size, seed, share), self._killed_at - 1)
        raise KeyboardInterrupt


class GroupedConvTask:
    """Tells which clips do not change in time; of `missing` examples it tells nothing."""

    def __init__(self, task: ClassificationTask, missing: int = 0) -> None:
        self._task, self._missing = task, missing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def strata(self, split: Split) -> Strata:
        number = sum(len(batch.inputs[0]) for batch in self._task.batches(split, 8)) - self._missing
        return Strata(("still", "moving"), torch.arange(number) % 2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gated") / "run"
    run(recipe_of(GATED), task=conv_task(), out=folder, console=Console(io.StringIO()))
    return folder


def test_killed_inside_the_stage_and_resumed_it_gives_the_same_record(finished: Path, tmp_path: Path) -> None:
    task = conv_task()
    killed: Any = KilledConvTask(task, 52)
    with pytest.raises(KeyboardInterrupt):
        run(recipe_of(GATED), task=killed, out=tmp_path / "run", console=Console(io.StringIO()))
    log = io.StringIO()
    resumed = run(recipe_of(GATED), task=task, out=tmp_path / "run", resume=True, console=Console(log))
    whole = run(recipe_of(GATED), task=task, out=finished, resume=True, console=Console(io.StringIO()))
    assert "continuing after step 50" in log.getvalue()
    for one, other in zip(whole.steps, resumed.steps, strict=True):
        same = (one.detail, one.measurement.quality, one.measurement.macs)
        assert same == (other.detail, other.measurement.quality, other.measurement.macs)
    models = [load_model(folder, task.build_model()) for folder in (finished, tmp_path / "run")]
    (inputs,) = task.example_inputs(6)
    torch.testing.assert_close(models[0](inputs), models[1](inputs), rtol=0, atol=1e-6)


def test_the_record_holds_the_work_of_each_validation_example(finished: Path) -> None:
    task = conv_task()
    record = run(recipe_of(GATED), task=task, out=finished, resume=True, console=Console(io.StringIO()))
    baseline, gated = (step.measurement for step in record.steps)
    model = load_model(finished, task.build_model())
    alone = [
        count_macs(model, (example[None],)).total
        for batch in task.batches("validation", 8)
        for example in batch.inputs[0]
    ]
    assert baseline.macs.of_inputs is None and gated.macs.of_inputs is not None
    assert gated.macs.of_inputs.num_examples == len(alone)
    assert gated.macs.total == round(sum(alone) / len(alone))
    assert gated.macs.of_inputs.edges[0] == min(alone)
    assert [len(latency.samples_s) for latency in gated.latency] == [8]  # one for each of several real inputs


def test_the_work_is_told_for_each_group_of_examples(finished: Path) -> None:
    task = conv_task()
    model = load_model(finished, task.build_model())
    grouped: Any = GroupedConvTask(task)
    recipe = recipe_of(GATED)
    measured = measure(model, task.load_baseline(), grouped, recipe).macs.of_inputs
    assert measured is not None and list(measured.by_group) == ["moving", "still"]
    (batch,) = task.batches("validation", 24)
    for name, first in (("still", 0), ("moving", 1)):
        costs = [count_macs(model, (example[None],)).total for example in batch.inputs[0][first::2]]
        assert measured.by_group[name] == sum(costs) / len(costs)
    words = draw_input_macs(measured, 1000, "title").axes[1].get_yticklabels()
    assert [word.get_text() for word in words] == ["moving", "still"]
    short: Any = GroupedConvTask(task, missing=3)
    with pytest.raises(StageError, match="groups of 21 examples, but the split has 24"):
        measure(model, task.load_baseline(), short, recipe)


def test_the_page_shows_the_work_of_inputs_and_the_options_of_layers(finished: Path) -> None:
    text = write_page(finished).read_text()
    assert "Work for each input" in text and "Dynamic layers" in text
    assert "of the dense MACs on average" in text
    for stem in ("inputs-1", "dynamic-1", "recovery-1"):
        assert (finished / "report" / f"{stem}.png").stat().st_size > 0
    assert "no figure for these stages" not in text
