"""From tables with bypasses to models: what they cost, what is kept of them, and that a plan with some runs."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_task import DIM, TinyTask
from tests.planning.test_session import budget_of, session_in
from toolkit.base.console import Console
from toolkit.blocks.dropped import stand_ins_of
from toolkit.planning.planned import Planned
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.search.refine import ORDERS, BestPlan
from toolkit.planning.session import Planner
from toolkit.planning.tables import cost, drops_of, make_plan, widths_of, without_bypasses
from toolkit.recipe.recipe import Measure
from toolkit.running.runner import run


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    one = session_in(tmp_path_factory.mktemp("tables"), TinyTask())
    assert one.profile.tables.blocks
    return one


class StreamTask(TinyTask):
    """The tiny task, whose stream can be cut too."""

    name = "tiny-stream"
    protected = ("head",)


def test_bypasses_cost_what_the_tables_say_in_every_context(tmp_path: Path) -> None:
    profile = ModelProfile(StreamTask(), TimingSettings(torch.device("cpu"), (), 1), tmp_path, Console(io.StringIO()))
    tables = profile.tables
    assert all([one.rank for one in block.bypasses] == ["full", DIM // 4] for block in tables.blocks)
    assert len(tables.contexts) == 2 and tables.counts_add_up
    levels = {"blocks.0.mlp.fc1": 2, "blocks.2.mlp.fc1": 2}
    for context, place in itertools.product(range(2), range(2)):
        removed = {"blocks.1": None, "blocks.2": place, "blocks.3": 1 - place}
        choice = make_plan(tables, context, removed.items(), levels)
        counts = profile.profiler.counts(drops_of(tables, choice), widths_of(tables, choice))
        assert counts == {key: pytest.approx(cost(tables, choice, key), abs=1e-9) for key in ("macs", "params")}
    model = profile.profiler.built({"blocks.1": "full", "blocks.2": 4}, {})
    each = {name: sum(part.numel() for part in one.parameters()) for name, one in stand_ins_of(model).items()}
    assert each == {"blocks.1": DIM * DIM + DIM, "blocks.2": 2 * 4 * DIM + DIM}


def test_bypasses_are_choices_beside_the_others_and_can_be_left_out(session: Planner) -> None:
    """What is kept for the one is kept for the other, and without them nothing is as if they were not there."""
    folder = session.profile.folder
    tables, scored = session.profile.tables, session.profile.engine.evaluations
    plain = session_in(folder, TinyTask())
    plain.profile.bypass = False
    assert plain.profile.tables == without_bypasses(tables)
    assert "engine" not in vars(plain.profile) and session.profile.engine.evaluations == scored
    assert session.profile.num_single_changes - plain.profile.num_single_changes == 2 * len(tables.blocks)
    assert session_in(folder, TinyTask()).profile.tables == tables
    assert not plain.plan(budget_of(0.5), "depth", 2).note.bypassed


def test_a_plan_with_bypasses_runs_as_predicted(session: Planner, tmp_path: Path) -> None:
    tables = session.profile.tables
    removed = {"blocks.0": None, "blocks.1": 1, "blocks.2": 0}
    choice = make_plan(tables, 0, removed.items(), {"blocks.3.mlp.fc1": 2})
    note = session._note(budget_of(0.5), "combined", BestPlan(choice, ORDERS[2], 0.0), session._counts(choice))
    assert (note.dropped, note.bypassed) == (tuple(removed), {"blocks.1": 4, "blocks.2": "full"})
    assert session.profile.score(choice, ORDERS[2]) == session_in(session.profile.folder, TinyTask()).profile.score(
        choice, ORDERS[2]
    )
    recipe = Planned("tiny", choice, ORDERS[2], note, tables).recipe()
    recipe = recipe.model_copy(update={"measure": Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)})
    record = run(recipe, task=TinyTask(), out=tmp_path / "run", console=Console(io.StringIO()))
    assert [step.stage for step in record.steps] == ["baseline", "block_drop", "channel_prune", *["block_drop"] * 2]
    ratio = record.steps[-1].measurement.macs.total / record.baseline.measurement.macs.total
    made = [one["repair"] for step in record.steps for one in step.detail.get("rounds", ())]
    if {one["kind"] for one in made[1:]} <= {"bypass", "fold_and_bypass"}:  # a fold alone may do as well
        assert ratio == pytest.approx(note.predicted.macs_ratio, abs=1e-6)
    assert ratio <= note.predicted.macs_ratio + 1e-6


def test_a_plan_that_knows_no_latency_is_measured_as_any_recipe(session: Planner) -> None:
    """Where no latency is limited nothing is timed, and the plan's record predicts none."""
    known = session.plan(budget_of(0.5), "depth", 0)
    predicted = known.note.predicted.model_copy(update={"latency_ratio": {}})
    planned = replace(known, note=known.note.model_copy(update={"predicted": predicted}))
    assert planned.recipe().measure.batch_sizes == Measure().batch_sizes
