"""block_drop against a brute-force choice, its targets and its faults."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tests.helpers.details import as_json
from tests.helpers.tiny_task import TinyTask
from toolkit.base.errors import StageError
from toolkit.blocks.drop import block_dropped
from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext

NAMES = [f"blocks.{i}" for i in range(4)]


@torch.no_grad()
def mean_loss(model: nn.Module, task: TinyTask) -> float:
    losses = [task.loss(model(*batch.inputs), batch.targets) for batch in task.batches("score", 16)]
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("criterion", ["loss", "task_metric", "block_mse"])
def test_each_round_drops_the_best_of_all_candidates(
    criterion: str, tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    dense = tiny_task.load_baseline()
    config = BlockDrop(num_blocks=2, criterion=criterion, repair="none")
    model, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert detail["blocks"] == NAMES
    assert sorted(detail["dropped"] + detail["remaining"]) == NAMES
    assert sorted(dropped_blocks(model)) == sorted(detail["dropped"])
    best = max if criterion == "task_metric" else min
    for index, one in enumerate(detail["rounds"]):
        assert sorted(one["scores"]) == [n for n in NAMES if n not in detail["dropped"][:index]]
        assert one["dropped"] == best(one["scores"], key=one["scores"].get)
        assert one["repair"] is None
    first = detail["rounds"][0]["scores"]
    find_blocks(dense, tiny_task.example_inputs(1))
    for name in NAMES:
        with block_dropped(dense, name):
            if criterion == "loss":
                assert first[name] == pytest.approx(mean_loss(dense, tiny_task))
            elif criterion == "task_metric":
                assert first[name] == pytest.approx(tiny_task.evaluate(dense, "score").value)
    if criterion == "block_mse":
        assert first == pytest.approx(block_mse_by_hooks(dense, tiny_task))


def block_mse_by_hooks(model: nn.Module, task: TinyTask) -> dict[str, float]:
    sums = {name: [0.0, 0] for name in NAMES}

    def note(name: str, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        sums[name][0] += float((entering - leaving).square().sum())
        sums[name][1] += entering.numel()

    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, args, out, n=name: note(n, args[0], out))
        for name in NAMES
    ]
    with torch.no_grad():
        for batch in task.batches("score", 16):
            model(*batch.inputs)
    for handle in handles:
        handle.remove()
    return {name: total / count for name, (total, count) in sums.items()}


def test_repair_lowers_the_loss_and_leaves_the_other_weights(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    dense = tiny_task.load_baseline()
    losses = {}
    for repair in ("none", "closed_form"):
        config = BlockDrop(num_blocks=2, criterion="loss", repair=repair)
        model, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
        losses[repair] = mean_loss(model, tiny_task)
    assert losses["closed_form"] < losses["none"]
    repaired = {one["repair"]["layer"] for one in detail["rounds"]}
    for one in detail["rounds"]:
        for errors in (one["repair"]["calibration_error"], one["repair"]["holdout_error"]):
            assert errors["after"] <= errors["before"]
    for name, value in model.state_dict().items():
        changed = not torch.equal(value, dense.state_dict()[name])
        assert changed == (name.rpartition(".")[0] in repaired)


def test_scoring_leaves_the_model_as_it_was(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    model = tiny_task.load_baseline()
    before = copy.deepcopy(model.state_dict())
    config = BlockDrop(num_blocks=1, criterion="loss", repair="none")
    after, _ = as_json(apply_block_drop)(model, tiny_task, config, tiny_context)
    assert all(torch.equal(value, before[name]) for name, value in after.state_dict().items())
    assert not after.training


def test_dropping_stops_at_the_macs_ratio(tiny_task: TinyTask, tiny_context: StageContext) -> None:
    config = BlockDrop(macs_ratio=0.55, criterion="block_mse")
    model, detail = as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)
    assert len(detail["dropped"]) == 2
    assert detail["macs_ratio"] == tiny_context.macs_ratio(model) <= 0.55


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BlockDrop(num_blocks=4), "num_blocks is 4, but the model has 4 blocks .* at most 3"),
        (BlockDrop(macs_ratio=0.01, criterion="block_mse"), r"macs_ratio 0.01 cannot be met .* one block left"),
    ],
)
def test_impossible_targets(config: BlockDrop, message: str, tiny_task: TinyTask, tiny_context: StageContext) -> None:
    with pytest.raises(StageError, match=message):
        as_json(apply_block_drop)(tiny_task.load_baseline(), tiny_task, config, tiny_context)


def test_a_model_without_blocks_and_a_score_that_is_not_a_number(
    tiny_task: TinyTask, tiny_context: StageContext
) -> None:
    plain = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3)).eval()
    with pytest.raises(StageError, match="no residual block"):
        as_json(apply_block_drop)(plain, tiny_task, BlockDrop(num_blocks=1), tiny_context)
    broken = tiny_task.load_baseline()
    with torch.no_grad():
        broken.head.bias.fill_(float("nan"))
    with pytest.raises(StageError, match=r"loss without block blocks\.\d is nan"):
        as_json(apply_block_drop)(
            broken, tiny_task, BlockDrop(num_blocks=1, criterion="loss", repair="none"), tiny_context
        )
