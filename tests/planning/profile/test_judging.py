"""Finalists are judged by what the recovery that follows would leave; kept scores of channels change no plan."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from tests.helpers.tiny_task import TinyTask
from toolkit.planning.profile.judging import PlanJudge
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.profile.plan_models import PlanModels
from toolkit.planning.profile.space import Space, find_space
from toolkit.planning.tables import Drops
from toolkit.stages.context import StageContext
from toolkit.stages.recover.settings import Recover

WIDTHS = {"blocks.0.mlp.fc1": 8}
DROPS: Drops = {"blocks.1": None}
ORDER = "depth_then_width"


@pytest.fixture(scope="module")
def task() -> TinyTask:
    return TinyTask()


@pytest.fixture(scope="module")
def space(task: TinyTask) -> Space:
    return find_space(task.load_baseline(), task.example_inputs(1), task.protected, round_to=4)


def models(task: TinyTask, context: StageContext, space: Space) -> PlanModels:
    return PlanModels(context.dense, task, context, space.blocks, space.structure)


def judged(engine: PlanScorer, recover: Recover | None) -> float:
    return PlanJudge(engine).loss_of({}, WIDTHS, ORDER, "closed_form", recover)


def judged_dense(engine: PlanScorer) -> float:
    losses = [scorer.dense_loss() for scorer in PlanJudge(engine)._scorers]
    return sum(losses) / len(losses)


def test_steps_that_the_run_would_undo_count_against_no_plan(
    task: TinyTask, tiny_context: StageContext, space: Space
) -> None:
    engine = PlanScorer(models(task, tiny_context, space))
    ruinous = {"learning_rate": 1.0, "max_steps": 20, "warmup_steps": 0, "batch_size": 8}
    untrained = judged(engine, None)
    assert judged(engine, Recover(select="best", **ruinous)) == pytest.approx(untrained)
    assert judged(engine, Recover(select="last", **ruinous)) > 1.01 * untrained


@pytest.mark.parametrize("select", ["best", "last"])
def test_steps_that_help_count_for_a_plan(
    select: Literal["best", "last"],
    task: TinyTask,
    tiny_context: StageContext,
    space: Space,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = PlanScorer(models(task, tiny_context, space))
    monkeypatch.setattr(PlanJudge, "_recovered", lambda *_: tiny_context.dense)
    assert judged(engine, Recover(select=select)) == pytest.approx(dense_loss := judged_dense(engine))
    assert dense_loss < judged(engine, None)


def test_plans_with_the_same_drops_share_scores_and_are_the_same_as_alone(
    task: TinyTask, tiny_context: StageContext, space: Space
) -> None:
    shared = models(task, tiny_context, space)
    for drops, widths in ((DROPS, {"blocks.3.mlp.fc1": 8}), ({}, WIDTHS), (DROPS, WIDTHS)):
        alone = models(task, tiny_context, space).model_of(drops, widths, ORDER).state_dict()
        together = shared.model_of(drops, widths, ORDER).state_dict()
        assert alone.keys() == together.keys()
        assert all(torch.equal(value, together[name]) for name, value in alone.items())
    assert len(shared._scores) == 2
    assert math.isfinite(PlanScorer(shared).loss_of(DROPS, WIDTHS, ORDER))
