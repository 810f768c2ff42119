"""What must hold for any family of models: blocks found, dropped one by one, saved, loaded, and cut by a whole run."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit import BlockDrop, Measure, compose, load_model, run
from toolkit.base.console import Console
from toolkit.blocks.drop import block_dropped, drop_block
from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.checkpoint.save import save_model
from toolkit.hooks.tensors import tensors_in
from toolkit.measure.macs import count_macs
from toolkit.record.run import RunRecord
from toolkit.tasks.task import Task

QUICK = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation", "test"))
Inputs = tuple[Tensor, ...]


@torch.no_grad()
def outputs_of(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    return tensors_in(model(*inputs))


def assert_same(first: nn.Module, second: nn.Module, inputs: Inputs) -> None:
    ones, others = outputs_of(first, inputs), outputs_of(second, inputs)
    assert len(ones) == len(others) > 0
    assert all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def assert_each_block_can_go(model: nn.Module, inputs: Inputs, blocks: list[str]) -> None:
    """The found blocks are the given ones; without each of them the model runs, does less, and says something else."""
    assert find_blocks(model, inputs) == blocks
    dense, dense_macs = outputs_of(model, inputs), count_macs(model, inputs).total
    for block in blocks:
        with block_dropped(model, block):
            found = outputs_of(model, inputs)
            assert count_macs(model, inputs).total < dense_macs
        assert [part.shape for part in found] == [part.shape for part in dense]
        assert all(bool(part.isfinite().all()) for part in found)
        assert not torch.equal(found[0], dense[0])
    assert all(torch.equal(one, other) for one, other in zip(outputs_of(model, inputs), dense, strict=True))


def assert_reloads(
    dense: nn.Module, build: Callable[[], nn.Module], inputs: Inputs, blocks: list[str], folder: Path
) -> None:
    """Saved without some of its blocks and loaded into a new model, it computes exactly the same."""
    model = without(dense, inputs, blocks)
    save_model(folder, model, dense, factory={"task": "mine"}, example_inputs=inputs, recipe_sha256=None)
    loaded = load_model(folder, build())
    assert dropped_blocks(loaded) == blocks
    assert_same(loaded, model, inputs)


def without(dense: nn.Module, inputs: Inputs, blocks: list[str]) -> nn.Module:
    model = copy.deepcopy(dense)
    find_blocks(model, inputs)
    for block in blocks:
        drop_block(model, block)
    return model


def run_drop(task: Task, config: BlockDrop, out: Path) -> RunRecord:
    """A run of that one stage through the API; the model that it left loads and has what the record says."""
    recipe = compose(task=task.name, depth=config, measure=QUICK)
    record = run(recipe, task=task, out=out, console=Console(io.StringIO()))
    model, inputs = load_model(out, task.build_model()), task.example_inputs(1)
    last = record.steps[-1]
    assert [step.stage for step in record.steps] == ["baseline", "block_drop"]
    assert sorted(dropped_blocks(model)) == sorted(last.detail["dropped"])
    assert len(last.detail["dropped"]) == config.num_blocks
    assert count_macs(model, inputs).total == last.measurement.macs.total < record.baseline.measurement.macs.total
    if config.repair == "none":
        assert_same(model, without(task.load_baseline(), inputs, last.detail["dropped"]), inputs)
    return record
