"""Selection against the naive way on nets of 12 blocks: the same scores, fewer block passes, faults that are caught."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.blocks.test_find import TupleBlock, TupleNet
from tests.helpers.details import as_json
from tests.helpers.tiny_task import EXAMPLES, TinyNet, TinyTask
from toolkit.base.errors import StageError
from toolkit.base.settings import Detail
from toolkit.blocks.find import find_blocks
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.selection import Selection, score_candidates
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Batch, Split

BLOCKS = 12
NAMES = [f"blocks.{i}" for i in range(BLOCKS)]
NAIVE = sum(n * (n - 1) for n in range(7, 13))  # 502


class DeepTask(TinyTask):
    """12 blocks whose weights differ in size; the labels are the net's own answers, and `blocks.7` hardly matters."""

    evaluation_batch = 16

    def __init__(self) -> None:
        self.teacher = self.load_baseline()
        self.made: dict[int, Batch] = {}

    @torch.no_grad()
    def _batch(self, batch_size: int, seed: int) -> Batch:
        if seed not in self.made:
            inputs = super()._batch(batch_size, seed).inputs
            self.made[seed] = Batch(inputs, self.teacher(*inputs).argmax(-1))
        return self.made[seed]

    def build_model(self) -> nn.Module:
        return TinyNet(BLOCKS)

    def load_baseline(self) -> nn.Module:
        torch.manual_seed(3)
        model = self.build_model().eval()
        for index, block in enumerate(model.blocks):
            size = 0.05 if index == 7 else 1.0 + 0.3 * ((5 * index) % BLOCKS)
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data *= size
        model.head.weight.data *= 10
        return model


class BriefTask(DeepTask):
    """Two batches of every split: enough to compare scores with, and to count passes."""

    examples = 32


class LayersTask(BriefTask):
    """Another net of the same inputs and outputs, whatever its blocks are called."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net.eval()
        super().__init__()

    def build_model(self) -> nn.Module:
        return copy.deepcopy(self.net)

    def load_baseline(self) -> nn.Module:
        return self.build_model()


class ShuffledTask(DeepTask):
    """Breaks the promise of a fixed order."""

    calls = 0

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        self.calls += 1
        for batch in super().batches(split, batch_size, limit=limit):
            order = torch.randperm(len(batch.inputs[0]), generator=torch.Generator().manual_seed(self.calls))
            yield Batch((batch.inputs[0][order],), batch.targets[order])


class Tuples(TupleNet):
    """Blocks that return tuples and are called by keyword, on signals instead of ids."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__(TupleBlock, 0)
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.layers = nn.ModuleList(TupleBlock() for _ in range(num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x))


class InPlace(TinyNet):
    """Changes the output of its blocks in place, as `x += position` does."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
            x *= 0.9
        return self.head(self.norm(x))


@pytest.fixture(scope="module")
def task() -> DeepTask:
    return DeepTask()


@pytest.fixture(scope="module")
def brief_task() -> BriefTask:
    return BriefTask()


def drop(num_blocks: int = 6, **settings: Any) -> BlockDrop:
    return BlockDrop.model_validate({"num_blocks": num_blocks, "criterion": "loss", **settings})


def applied(task: TinyTask, config: BlockDrop, context: StageContext) -> Detail:
    context = replace(context, dense=task.load_baseline(), count_macs=lambda _: 1)
    return as_json(apply_block_drop)(task.load_baseline(), task, config, context)[1]


def selected(task: TinyTask, config: BlockDrop, context: StageContext, number: int = 1) -> Selection:
    model = task.load_baseline()
    names = find_blocks(model, task.example_inputs(1))
    return score_candidates(model, copy.deepcopy(model), names, task, config, context, number)


def assert_naive(detail: Detail) -> None:
    assert detail["rounds"]
    for one in detail["rounds"]:
        assert one["scores"] == pytest.approx(one["naive_scores"], rel=1e-6, abs=1e-6)
        assert one["dropped"] == one["naive_choice"]


@pytest.mark.parametrize("repair", ["none", "closed_form"])
@pytest.mark.parametrize("criterion", ["loss", "task_metric", "block_mse", "random"])
def test_scores_are_the_naive_ones(
    criterion: str, repair: str, brief_task: BriefTask, tiny_context: StageContext
) -> None:
    detail = applied(brief_task, drop(criterion=criterion, repair=repair, verify_selection=True), tiny_context)
    assert_naive(detail)
    passes = detail["block_passes"]
    assert passes["naive"] == NAIVE
    assert (passes["repair"] > 0) == (repair == "closed_form")
    assert len({tuple(one["scores"].values()) for one in detail["rounds"]}) == 6
    if criterion in ("loss", "task_metric"):
        sizes = range(12, 6, -1)
        assert [one["block_passes"]["executed"] for one in detail["rounds"]] == [
            n * (n - 1) / 2 + (n - 1) for n in sizes
        ]
        assert passes["executed"] == 302
        assert passes["executed"] <= 0.61 * NAIVE
        assert passes["layers"] == (0 if repair == "none" else sum(n - 2 for n in sizes))
    else:
        # the model up to the last block's input, the reference with all of its blocks
        counts = [n - 1 + BLOCKS for n in range(12, 6, -1)] if criterion == "block_mse" else [0] * 6
        assert passes["executed"] <= sum(counts)
        assert detail["rounds"][0]["block_passes"]["executed"] == counts[0]


def test_without_reuse_the_count_is_the_naive_one(task: DeepTask, tiny_context: StageContext) -> None:
    passes = selected(task, drop(reuse_prefix=False), tiny_context).passes
    assert passes["executed"] == passes["naive"] == 132
    assert passes["layers"] == 0


@pytest.mark.parametrize("criterion", ["loss", "task_metric"])
@pytest.mark.parametrize("repair", ["none", "closed_form"])
def test_racing_takes_a_quarter_and_finds_the_same_easy_block(
    criterion: str, repair: str, task: DeepTask, tiny_context: StageContext
) -> None:
    config = drop(criterion=criterion, repair=repair, racing="successive_halving")
    detail = applied(task, config, tiny_context)
    assert detail["block_passes"]["naive"] == NAIVE
    assert detail["block_passes"]["executed"] <= 0.25 * NAIVE
    first = detail["rounds"][0]
    assert (
        first["dropped"]
        == "blocks.7"
        == selected(task, drop(criterion=criterion, repair=repair), tiny_context).best.block
    )
    assert [len(rung["scores"]) for rung in first["rungs"]] == [12, 6, 3]
    assert [rung["num_examples"] for rung in first["rungs"]] == [16, 32, 58]
    assert list(first["scores"]) == NAMES


def test_rungs_score_what_the_task_scores_on_as_many_examples(task: DeepTask, tiny_context: StageContext) -> None:
    """Answers kept from a smaller rung and a shared prefix change nothing."""
    config = drop(criterion="task_metric", racing="successive_halving", repair="none")
    shared, plain = (
        selected(task, config.model_copy(update={"reuse_prefix": on}), tiny_context) for on in (True, False)
    )
    assert [rung.scores for rung in shared.rungs] == [rung.scores for rung in plain.rungs]
    model = task.load_baseline()
    find_blocks(model, task.example_inputs(1))
    for rung in shared.rungs:
        for block, score in rung.scores.items():
            without = copy.deepcopy(model)
            without.blocks[int(block.rpartition(".")[2])] = nn.Identity()
            assert score == task.evaluate(without, "score", limit=rung.num_examples).value
    last = shared.rungs[-1].scores
    assert last[shared.best.block] == max(last.values())
    assert sorted(shared.ranking) == sorted(NAMES)
    reached = [sum(block in rung.scores for rung in shared.rungs) for block in shared.ranking]
    assert reached == sorted(reached, reverse=True)
    assert shared.passes["executed"] < plain.passes["executed"]


@pytest.mark.parametrize("racing", ["none", "successive_halving"])
@pytest.mark.parametrize("criterion", ["loss", "task_metric"])
def test_a_task_that_shuffles_is_caught(racing: str, criterion: str, tiny_context: StageContext) -> None:
    with pytest.raises(StageError, match="not the same at every call"):
        selected(ShuffledTask(), drop(criterion=criterion, racing=racing, repair="none"), tiny_context)


@pytest.mark.parametrize("net", [Tuples(5), InPlace(5)], ids=["tuples", "in place"])
@pytest.mark.parametrize("repair", ["none", "closed_form"])
@pytest.mark.parametrize("criterion", ["loss", "block_mse"])
def test_other_nets(net: nn.Module, repair: str, criterion: str, tiny_context: StageContext) -> None:
    config = drop(3, criterion=criterion, repair=repair, verify_selection=True)
    detail = applied(LayersTask(net), config, tiny_context)
    assert_naive(detail)
    if criterion == "loss":
        assert detail["block_passes"]["executed"] < detail["block_passes"]["naive"]


def test_a_repaired_block_that_returns_a_tuple_is_run_again(tiny_context: StageContext) -> None:
    passes = selected(LayersTask(Tuples(5)), drop(repair="closed_form"), tiny_context).passes
    assert passes["executed"] == 10 + 4 + 3  # without repair; one block more for each but the first and the last
    assert passes["layers"] == 0


@pytest.mark.parametrize("racing", ["none", "successive_halving"])
def test_scoring_leaves_no_trace(racing: str, task: DeepTask, tiny_context: StageContext) -> None:
    model = task.load_baseline()
    names = find_blocks(model, task.example_inputs(1))
    before, modules = copy.deepcopy(model.state_dict()), list(model.modules())
    score_candidates(model, copy.deepcopy(model), names, task, drop(racing=racing), tiny_context, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(model.modules()) == modules
    for module in modules:
        assert "forward" not in vars(module)
        assert not module._forward_hooks and not module._forward_pre_hooks
    assert not model.training


@pytest.mark.parametrize("racing", ["none", "successive_halving"])
@pytest.mark.parametrize("criterion", ["loss", "task_metric"])
def test_nan_is_an_error(racing: str, criterion: str, task: DeepTask, tiny_context: StageContext) -> None:
    class Broken(DeepTask):
        def loss(self, outputs: Any, targets: Any) -> Tensor:
            return super().loss(outputs, targets) * float("nan")

        def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Any:
            return super().evaluate(model, split, limit=limit).model_copy(update={"value": float("nan")})

    message = rf"{criterion} without block blocks\.\d+ is nan|gave no usable metric on .score.: accuracy is nan"
    with pytest.raises(StageError, match=message):
        selected(Broken(), drop(criterion=criterion, racing=racing), tiny_context)


@pytest.mark.parametrize(("repair", "message"), [("none", "block_mse without block"), ("closed_form", "not finite")])
def test_nan_inside_the_model_is_an_error(repair: str, message: str, tiny_context: StageContext) -> None:
    net = TinyNet(3)
    net.blocks[1].mlp.fc2.bias.data.fill_(float("nan"))
    with pytest.raises(StageError, match=message):
        selected(LayersTask(net), drop(1, criterion="block_mse", repair=repair), tiny_context)


def test_random_is_drawn_from_the_seed_and_the_round(task: DeepTask, tiny_context: StageContext) -> None:
    config = drop(criterion="random", repair="none")

    def scores(seed: int, number: int) -> list[float]:
        found = selected(task, config, replace(tiny_context, seed=seed), number)
        assert found.passes["executed"] == 0
        assert found.best.score == min(candidate.score for candidate in found.candidates)
        return [candidate.score for candidate in found.candidates]

    assert scores(0, 1) == scores(0, 1)
    assert len({tuple(scores(seed, number)) for seed in (0, 1) for number in (1, 2)}) == 4


def test_a_smaller_limit_comes_first_in_a_larger_one(task: DeepTask) -> None:
    whole = torch.cat([batch.inputs[0] for batch in task.batches("score", 7)])
    part = torch.cat([batch.inputs[0] for batch in task.batches("score", 7, limit=20)])
    assert len(whole) == task.num_examples("score") == EXAMPLES
    assert torch.equal(part, whole[:20])


@pytest.mark.parametrize("criterion", ["block_mse", "random"])
def test_racing_needs_a_criterion_that_runs_candidates(criterion: str) -> None:
    with pytest.raises(ValidationError, match=f"racing has no effect with criterion {criterion}"):
        drop(criterion=criterion, racing="successive_halving")
