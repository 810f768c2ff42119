"""From nothing to a recipe that runs, and from kept numbers to another one without scoring anything."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from tests.helpers.slow import cases
from tests.helpers.tiny_task import TinyTask
from toolkit.base.console import Console
from toolkit.base.errors import PlanError, StageError, UserError
from toolkit.measure.results import MeasurementKey, Quality
from toolkit.planning.budget import Budget, Limit, Resource
from toolkit.planning.plan_recipe import plan_recipe
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.search.refine import EXAMPLES
from toolkit.planning.session import LATENCY_TOLERANCE, Planner, open_session
from toolkit.planning.settings import PlanSettings
from toolkit.planning.tables import Plan, cost, latency_of, widths_of
from toolkit.recipe.recipe import Measure
from toolkit.record.plan import Criterion, ScoredOn
from toolkit.running.runner import run
from toolkit.stages.recover.settings import Recover

CPU1 = MeasurementKey(device="cpu", batch_size=1)


def session_in(folder: Path, task: TinyTask, rebuild: bool = False) -> Planner:
    timing = TimingSettings(torch.device("cpu"), (1, 2), 1, repeats=3)
    return Planner(ModelProfile(task, timing, folder, Console(io.StringIO()), rebuild))


def budget_of(value: float, resource: Resource = "macs", **more: object) -> Budget:
    return Budget(limits=(Limit(resource=resource, value=value),), threads=1, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def session(folder: Path) -> Planner:
    one = session_in(folder, TinyTask())
    assert one.profile.tables.blocks
    return one


def test_costs_add_up(session: Planner) -> None:
    """Multiply-adds and parameters of a plan are those of its model, exactly."""
    tables = session.profile.tables
    for key in ("macs", "params"):
        assert cost(tables, Plan(), key) == pytest.approx(1.0, abs=1e-9)
    choice = Plan(0, frozenset({"blocks.2"}), {"blocks.0.mlp.fc1": 2, "blocks.3.attn": 1})
    model = session.profile.profiler.built({"blocks.2": None}, widths_of(tables, choice))
    assert cost(tables, choice, "macs") == pytest.approx(session.profile.context.macs_ratio(model), abs=1e-9)
    total = sum(parameter.numel() for parameter in model.parameters())
    dense = sum(parameter.numel() for parameter in session.profile.dense.parameters())
    assert cost(tables, choice, "params") == pytest.approx(total / dense, abs=1e-9)


def test_a_plan_runs_as_predicted(session: Planner, tmp_path: Path) -> None:
    planned = session.plan(budget_of(0.5), "combined", 8)
    assert planned.note.scored_loss == session.profile.score(planned.choice, planned.order)
    recipe = planned.recipe((Recover(max_steps=2),)).model_copy(
        update={"measure": Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)}
    )
    record = run(recipe, task=TinyTask(), out=tmp_path / "run", console=Console(io.StringIO()))
    ratio = record.steps[-1].measurement.macs.total / record.baseline.measurement.macs.total
    assert ratio == pytest.approx(planned.note.predicted.macs_ratio, abs=1e-6)
    assert ratio <= 0.5


def test_replanning_scores_nothing(session: Planner, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = session_in(folder, TinyTask())
    monkeypatch.setattr(ModelProfile, "engine", property(lambda _: pytest.fail("something was scored")))
    monkeypatch.setattr(ModelProfile, "profiler", property(lambda _: pytest.fail("something was timed")))
    monkeypatch.setattr(ModelProfile, "space", property(lambda _: pytest.fail("the model was searched")))
    planned = again.plan(budget_of(0.6), "width", 0)
    assert planned.note.predicted.macs_ratio <= 0.6
    assert not planned.note.dropped and planned.note.evaluations == 0


def test_scored_plans_are_kept(session: Planner, folder: Path) -> None:
    session.plan(budget_of(0.7), "depth", 4)
    before = session.profile.engine.evaluations
    session_in(folder, TinyTask()).plan(budget_of(0.7), "depth", 4)
    session.plan(budget_of(0.7), "depth", 4)
    assert session.profile.engine.evaluations == before


@pytest.mark.parametrize("scored_on", ["training", "validation"])
@pytest.mark.parametrize("criterion", ["loss", "distance"])
def test_what_plans_are_compared_by(criterion: Criterion, scored_on: ScoredOn, folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("costs-*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    timing = TimingSettings(torch.device("cpu"), (1, 2), 1, repeats=3)
    task = TinyTask()
    profile = ModelProfile(task, timing, tmp_path, Console(io.StringIO()), criterion=criterion, scored_on=scored_on)
    planned = Planner(profile).plan(budget_of(0.7), "depth", 3)
    assert (planned.note.criterion, planned.note.scored_on) == (criterion, scored_on)
    assert planned.note.scored_loss is not None
    if criterion == "distance":
        assert planned.note.dense_loss == pytest.approx(0.0, abs=1e-6) and planned.note.scored_loss > 0
        return
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in task.batches("score" if scored_on == "training" else "validation", 16, limit=EXAMPLES):
            total += float(task.loss(profile.dense(*batch.inputs), batch.targets)) * len(batch.targets)
            count += len(batch.targets)
    assert planned.note.dense_loss == pytest.approx(total / count, rel=1e-5)


def test_half_a_file_and_other_weights(session: Planner, folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = session_in(tmp_path, TinyTask(train_steps=1))
    with pytest.raises(UserError, match=r"losses-tiny-loss-training.json: .* other conditions \(weights: .*--rebuild"):
        other.plan(budget_of(0.5), "combined", 0)
    (kept,) = tmp_path.glob("costs-*.json")
    kept.write_bytes(kept.read_bytes()[:200])
    with pytest.raises(UserError, match=r"costs-cpu-.*json: damaged or cut off"):
        session_in(tmp_path, TinyTask()).plan(budget_of(0.5), "combined", 0)


def test_half_of_what_is_derived_is_made_again(session: Planner, folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (derived,) = tmp_path.glob("tables-*.json")
    whole = derived.read_bytes()
    derived.write_bytes(whole[:100])
    assert session_in(tmp_path, TinyTask()).profile.tables == session.profile.tables
    assert derived.read_bytes() == whole


def test_numbers_that_an_earlier_version_kept_are_read(
    session: Planner, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It named latencies by their batch size alone."""
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (derived,) = tmp_path.glob("tables-*.json")
    whole = derived.read_text()
    derived.write_text(whole.replace("latency@cpu_batch", "latency@"))
    (costs,) = tmp_path.glob("costs-*.json")
    assert costs.name.endswith("-batch-1-2-threads-1.json")
    content = json.loads(costs.read_text())
    assert content["about"]["batch sizes"] == "1, 2"
    costs.write_text(json.dumps(content | {"entries": content["entries"] | {"dense seconds | 1": [0.25]}}))
    for module in ("costs", "model_profile"):
        monkeypatch.setattr(f"toolkit.planning.profile.{module}.measure_latency", lambda *_, **__: pytest.fail("timed"))
    again = session_in(tmp_path, TinyTask())
    assert again.profile.tables == session.profile.tables
    assert again.profile.dense_latency_s(CPU1) == 0.25
    assert derived.read_text() == whole


def test_quality_that_no_plan_keeps(session: Planner) -> None:
    words = r"accuracy 0\.\d+ on validation .*below min_quality 1; the dense model has 0\.\d+; give a lower min_qu"
    with pytest.raises(PlanError, match=words):
        session.plan(budget_of(0.4, min_quality=1.0), "combined", 0)
    assert session.plan(budget_of(0.9, min_quality=0.01), "combined", 0).note.predicted.macs_ratio <= 0.9


def test_the_nearest_budget_that_keeps_a_quality_is_named(session: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    def quality(one: Planner, choice: Plan, order: str, *_: str) -> Quality:
        left = cost(one.profile.tables, choice, "macs")
        return Quality(metric="accuracy", split="validation", value=left, num_examples=1)

    monkeypatch.setattr(Planner, "_quality", quality)
    monkeypatch.setattr("toolkit.planning.session.nearest_with_quality", lambda *_: (0.62, 0.61))
    with pytest.raises(PlanError, match=r"below min_quality 0.6; about macs=0.620 keeps 0.6100$"):
        session.plan(budget_of(0.4, min_quality=0.6), "combined", 0)


def test_an_impossible_budget(session: Planner) -> None:
    with pytest.raises(PlanError, match=r"family depth reaches macs=0.01; the nearest feasible budget is macs=0\.\d+"):
        session.plan(budget_of(0.01), "depth", 4)


def test_a_plan_that_is_slower_than_predicted_is_made_again(session: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(profile: ModelProfile, choice: Plan, key: MeasurementKey) -> float:
        return 1.2 * cost(profile.tables, choice, latency_of(key))

    monkeypatch.setattr(ModelProfile, "measured_latency", slower)
    note = session.plan(budget_of(0.7, "latency"), "combined", 4).note
    assert note.measured_latency_ratio == {CPU1: pytest.approx(1.2 * note.predicted.latency_ratio[CPU1])}
    assert note.measured_latency_ratio[CPU1] <= 0.7 * (1 + LATENCY_TOLERANCE)
    assert not session.plan(budget_of(0.7, "latency"), "combined", 0).note.measured_latency_ratio, "from tables alone"


def test_a_latency_that_no_plan_holds_when_timed(session: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelProfile, "measured_latency", lambda *_: 0.9)
    with pytest.raises(PlanError, match=r"found to hold latency=0.7; the nearest feasible .* is about latency=0.90\d$"):
        session.plan(budget_of(0.7, "latency"), "depth", 4)


def test_an_unknown_device() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch finds no CUDA device here"):
            open_session(TinyTask(), PlanSettings(device="cuda"))


@pytest.mark.parametrize("is_known", cases((True, False), in_suite=(True,)))
def test_one_call(is_known: bool, session: Planner, folder: Path, tmp_path: Path) -> None:
    """From tables that are there already, or from nothing."""
    recipe = plan_recipe(
        TinyTask(),
        budget_of(0.5),
        family="depth",
        evaluations=0,
        settings=PlanSettings(batch_sizes=(1, 2), tables=folder if is_known else tmp_path / "own"),
        console=Console(io.StringIO()),
    )
    assert recipe.name == "depth-macs_0.5" and recipe.family == "depth"


def test_a_loss_that_is_no_number_is_not_kept(session: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.profile.task, "loss", lambda *_: torch.tensor(float("nan")))
    known = len(session.profile.losses.entries)
    with pytest.raises(StageError, match=r"the loss after cutting blocks\.0 is nan"):
        session.profile.score(Plan(0, frozenset({"blocks.0"})), "width_then_depth")
    assert len(session.profile.losses.entries) == known
