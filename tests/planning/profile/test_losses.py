"""Plans as models: the same as the stages make, scored the same with and without what is shared."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.details import as_json
from tests.helpers.slow import cases
from tests.helpers.tiny_task import DIM, TinyNet, TinyTask
from tests.repair.test_bypass import task_of
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.profile.plan_models import PlanModels
from toolkit.planning.profile.space import Space, find_space
from toolkit.planning.solve import IMPORTANCE, drop_stage
from toolkit.planning.tables import Drops, Width, halves, in_runs
from toolkit.repair.damping import choose
from toolkit.stages.block_drop.apply import apply_block_drop
from toolkit.stages.block_drop.criteria import model_score
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Heads, WidthRepair
from toolkit.stages.context import StageContext
from toolkit.tasks.divergence import bernoulli_divergence
from toolkit.tasks.task import Task


class StreamTask(TinyTask):
    """The tiny task, whose stream can be cut too."""

    protected = ("head",)


@pytest.fixture(scope="module")
def task() -> StreamTask:
    return StreamTask()


@pytest.fixture(scope="module")
def space(task: StreamTask) -> Space:
    return find_space(task.load_baseline(), task.example_inputs(1), task.protected, round_to=4)


@pytest.fixture
def engine(task: StreamTask, tiny_context: StageContext, space: Space) -> PlanScorer:
    return PlanScorer(PlanModels(tiny_context.dense, task, tiny_context, space.blocks, space.structure))


WIDTHS: dict[str, Width] = {"blocks.0.mlp.fc1": 8, "blocks.3.attn": Heads(heads=1), "embed": 8}
WIDTHS_WITHOUT: dict[str, Width] = {"blocks.3.attn": Heads(heads=1), "embed": 8}
FOLDS: Drops = {"blocks.1": None, "blocks.2": None}
CUTS: dict[str, tuple[Drops, dict[str, Width]]] = {
    "depth": (FOLDS, {}),
    "mlp": ({}, {"blocks.2.mlp.fc1": 16}),
    "stream": ({}, {"embed": 12}),
    "both": (FOLDS, WIDTHS),
    "bypass": ({"blocks.1": "full"}, {}),
    "bypasses": ({"blocks.1": 4, "blocks.2": 4}, {}),
    "bypass and fold": ({"blocks.1": "full", "blocks.2": None}, {}),
    "fold and bypass": ({"blocks.1": None, "blocks.2": 4}, {}),
    "bypass before widths": ({"blocks.2": "full"}, {"blocks.1.mlp.fc1": 16, "blocks.3.mlp.fc1": 16}),
    "bypass and stream": ({"blocks.1": "full"}, {"embed": 12}),
    "low rank and stream": ({"blocks.1": 4}, {"embed": 12}),
    "all": ({"blocks.0": None, "blocks.1": "full", "blocks.2": 2}, WIDTHS_WITHOUT),
}
ORDERS = ("depth_then_width", "width_then_depth", "interleaved")


def by_stages(
    task: Task,
    context: StageContext,
    drops: Drops,
    widths: dict[str, Width],
    order: str,
    repair: WidthRepair = "closed_form",
) -> torch.nn.Module:
    model = copy.deepcopy(context.dense).requires_grad_(True)
    first, last = halves(drops, order, bool(widths))

    def drop(some: Drops) -> None:
        nonlocal model
        for rank, blocks in in_runs(some):
            config = drop_stage(rank, blocks)
            model, detail = as_json(apply_block_drop)(model, task, config, context)
            assert tuple(detail["dropped"]) == blocks and detail["block_passes"]["executed"] == 0

    drop(first)
    if widths:
        narrow = ChannelPrune(widths=widths, importance=IMPORTANCE, repair=repair)
        model, _ = as_json(apply_channel_prune)(model, task, narrow, context)
    drop(last)
    return model


def decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out data choose no damping, accept no improvement and refuse no repair."""

    def without(problem: Any, _: Any, old: Any, held: Any, __: Any) -> Any:
        return choose(problem, None, old, held)

    monkeypatch.setattr("toolkit.repair.fit.choose", without)
    monkeypatch.setattr("toolkit.repair.improvement.MOST_IMPROVEMENTS", 0)


@pytest.mark.parametrize("order", cases(ORDERS, in_suite=ORDERS[:2]))
@pytest.mark.parametrize(
    ("drops", "widths"),
    [
        ({"blocks.1": "full"}, {"blocks.0.conv1": 4}),
        ({"blocks.0": None, "blocks.1": 2}, {"blocks.2.conv1": 4}),
        ({"blocks.1": 2, "blocks.2": None}, {}),
        ({"blocks.1": "full"}, {"stem": 6}),
        ({"blocks.1": 2}, {"stem": 6, "blocks.2.conv1": 4}),
    ],
)
@pytest.mark.parametrize("repair", ["closed_form", pytest.param("all_layers", marks=pytest.mark.slow)])
def test_a_plan_of_a_net_with_activations_in_its_stream(
    drops: Drops,
    widths: dict[str, Width],
    order: str,
    repair: WidthRepair,
    tiny_context: StageContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There every sum passes a ReLU, in the place of the bypass too."""
    decide_nothing(monkeypatch)
    task = task_of("basic")
    context = replace(tiny_context, dense=task.load_baseline(), dense_macs=1000, count_macs=lambda _: 1000)
    space = find_space(context.dense, task.example_inputs(1), task.protected, round_to=1)
    models = PlanModels(context.dense, task, context, space.blocks, space.structure)
    quick = models.model_of(drops, widths, order, repair)
    staged = by_stages(task, context, drops, widths, order, repair)
    inputs = next(iter(task.batches("test", 8))).inputs[0]
    with torch.no_grad():
        torch.testing.assert_close(quick(inputs), staged(inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("repair", ["closed_form", pytest.param("all_layers", marks=pytest.mark.slow)])
@pytest.mark.parametrize("order", cases(ORDERS, in_suite=ORDERS[:2]))
@pytest.mark.parametrize("cut", CUTS)
def test_a_plan_is_what_the_stages_make_of_it(
    task: StreamTask,
    tiny_context: StageContext,
    engine: PlanScorer,
    cut: str,
    order: str,
    repair: WidthRepair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where held-out data decide nothing: in their place the planner takes a part of the calibration data."""
    decide_nothing(monkeypatch)
    dropped, widths = CUTS[cut]
    quick = engine.models.model_of(dropped, widths, order, repair)
    staged = by_stages(task, tiny_context, dropped, widths, order, repair)
    inputs = task.example_inputs(3)
    with torch.no_grad():
        torch.testing.assert_close(quick(*inputs), staged(*inputs), rtol=1e-3, atol=1e-4)
    loss = engine.loss_of(dropped, widths, order, repair)
    assert loss == pytest.approx(model_score(staged, task, "loss", tiny_context, None), rel=1e-3)


@pytest.mark.parametrize("cut", CUTS)
def test_a_plan_scores_nearly_as_what_the_stages_make_of_it(
    task: StreamTask, tiny_context: StageContext, engine: PlanScorer, cut: str
) -> None:
    dropped, widths = CUTS[cut]
    staged = by_stages(task, tiny_context, dropped, widths, ORDERS[0])
    loss = model_score(staged, task, "loss", tiny_context, None)
    assert engine.loss_of(dropped, widths, ORDERS[0]) == pytest.approx(loss, rel=0.02)


class Scale(torch.nn.Module):
    """One number per channel, as LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = torch.nn.Parameter(torch.linspace(0.5, 1.5, DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class ScaledTask(StreamTask):
    """Branches are scaled per channel of the stream before they are added to it."""

    def build_model(self) -> torch.nn.Module:
        net = TinyNet()
        for block in net.blocks:
            block.mlp = torch.nn.Sequential(block.mlp, Scale())
        return net


def test_streams_of_several_widths_have_scales_of_their_own(tiny_context: StageContext) -> None:
    task = ScaledTask()
    dense = task.load_baseline()
    context = replace(tiny_context, dense=dense)
    space = find_space(dense, task.example_inputs(1), task.protected, round_to=4)
    engine = PlanScorer(PlanModels(dense, task, context, space.blocks, space.structure))
    losses = [engine.loss_of({"blocks.1": None}, {"embed": width}, "width_then_depth") for width in (12, 8)]
    widths: dict[str, Width] = {"embed": 12, "blocks.1.mlp.0.fc1": 16}
    losses += [engine.loss_of({"blocks.2": None}, widths, order) for order in ORDERS[:2]]
    assert len(set(losses)) == len(losses)


def test_what_is_shared_changes_no_score(task: StreamTask, tiny_context: StageContext, engine: PlanScorer) -> None:
    for dropped, widths in [
        ({"blocks.3": None}, {}),
        ({}, {"blocks.3.mlp.fc1": 8}),
        ({"blocks.2": None}, {"blocks.3.attn": Heads(heads=1)}),
    ]:
        model = engine.models.model_of(dropped, widths, ORDERS[0])
        before = engine.block_passes
        score = engine.loss_of(dropped, widths, ORDERS[0])
        assert score == model_score(model, task, "loss", tiny_context, None)
        assert 0 < engine.block_passes - before <= 11, "leading blocks of the dense model are not run again"


def test_distance_to_the_dense_predictions(task: StreamTask, tiny_context: StageContext, engine: PlanScorer) -> None:
    by_distance = PlanScorer(engine.models, criterion="distance")
    assert by_distance.dense_loss() == pytest.approx(0.0, abs=1e-7)
    dropped, widths = CUTS["both"]
    model = engine.models.model_of(dropped, widths, ORDERS[0])
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in task.batches("score", 16):
            new, old = model(*batch.inputs), tiny_context.dense(*batch.inputs)
            total += float(bernoulli_divergence(new, old, 1.0).mean()) * len(new)
            count += len(new)
    assert by_distance.loss_of(dropped, widths, ORDERS[0]) == pytest.approx(total / count, rel=1e-5)
    assert total > 0


def test_the_dense_model_is_left_alone(task: StreamTask, tiny_context: StageContext, engine: PlanScorer) -> None:
    before = {name: value.clone() for name, value in tiny_context.dense.state_dict().items()}
    dense = engine.dense_loss()
    for dropped, widths in CUTS.values():
        engine.loss_of(dropped, widths, ORDERS[1])
    after = tiny_context.dense.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert engine.dense_loss() == dense == model_score(tiny_context.dense, task, "loss", tiny_context, None)
    assert engine.evaluations == 2 + len(CUTS)
    assert not any("forward" in vars(module) for module in tiny_context.dense.modules())


def test_the_space(space: Space, tmp_path: Path) -> None:
    assert space.blocks == tuple(f"blocks.{index}" for index in range(4))
    assert space.widths["blocks.0.mlp.fc1"] == (32, 28, 24, 20, 16, 12, 8, 4)
    assert space.widths["blocks.0.attn"] == (
        Heads(heads=2),
        Heads(heads=1),
        Heads(heads=2, head_dim=4),
    )
    assert space.streams == {"stream 1": {}, "stream 0.75": {"embed": 12}, "stream 0.5": {"embed": 8}}
    assert space.home("blocks.2.attn") == "blocks.2"
