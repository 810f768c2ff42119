"""Loading a planner's sweep: every cell is measured, infeasible or not run, and unlike records are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.fronts.cells import holds_fronts, load_fronts
from reports.fronts.files import fronts_csv
from reports.fronts.words import gone
from tests.helpers.example_fronts import (
    REASON,
    control_record,
    plan_note,
    planned_record,
    save_infeasible,
    save_planned,
    save_sweep,
)
from tests.helpers.example_records import measurement, on_two_devices, save
from toolkit.base.errors import RecordError
from toolkit.measure.results import MeasurementKey
from toolkit.record.plan import PLAN_FILE, Predicted
from toolkit.record.run import RunRecord


def test_every_cell_is_somewhere(tmp_path: Path) -> None:
    fronts = load_fronts(save_sweep(tmp_path))
    assert (len(fronts.cells), len(fronts.infeasible), len(fronts.not_run)) == (29, 3, 1)
    assert len({place.name for place in fronts.places}) == 33
    assert [(gap.place.name, gap.reason) for gap in fronts.not_run] == [("combined_0.5/seed2", "not begun")]
    assert fronts.not_run[0].place.budget == "latency=0.5"
    assert {(gap.place.family, gap.place.budget, gap.reason) for gap in fronts.infeasible} == {
        ("depth", "latency=0.35", REASON)
    }
    assert {cell.place.variant for cell in fronts.cells if cell.place.family is None} == {
        "dense_control",
        "plain_smaller",
    }
    assert "24 test examples" in fronts.settings
    assert "CUDA: not measured" in fronts.settings


def test_numbers_are_those_of_the_record(tmp_path: Path) -> None:
    made = planned_record("combined", 0.5, seed=1)
    save_planned(tmp_path, "combined", 0.5, seed=1)
    (cell,) = load_fronts(tmp_path).cells
    dense, now = made.baseline.measurement, made.steps[-1].measurement
    assert cell.costs == {
        "macs_ratio": now.macs.total / dense.macs.total,
        "params_ratio": now.num_params / dense.num_params,
        "latency_ratio_cpu_batch1": now.latency[0].ratio,
        "latency_ratio_cpu_batch16": now.latency[1].ratio,
    }
    assert cell.predicted == {
        "macs_ratio": 0.5,
        "params_ratio": 0.5,
        "latency_ratio_cpu_batch1": 0.5,
        "latency_ratio_cpu_batch16": 0.5**1.1,
    }
    assert cell.dense_quality == {"test": 0.661, "validation": pytest.approx(0.673)}
    assert cell.change == cell.quality["test"] - 0.661
    assert cell.dropped == ("blocks.3", "blocks.7", "blocks.8")
    assert cell.widths == plan_note("combined", 0.5).widths


def test_predictions_for_another_machine_have_no_measurement(tmp_path: Path) -> None:
    cell = save_planned(tmp_path, "width", 0.5)
    plan_note("width", 0.5, threads=4).save(cell)
    (loaded,) = load_fronts(tmp_path).cells
    assert [key for key in loaded.predicted if key in loaded.costs] == ["macs_ratio", "params_ratio"]


def test_predictions_meet_what_was_measured_on_their_device(tmp_path: Path) -> None:
    """A run on CUDA is timed on the CPU too; a plan for CUDA that is run without it has no measurement."""
    cell = save_planned(tmp_path / "both", "width", 0.5)
    save(on_two_devices(planned_record("width", 0.5), "cuda"), cell)
    (loaded,) = load_fronts(tmp_path / "both").cells
    assert {key for key in loaded.predicted if key in loaded.costs} == set(loaded.predicted)
    assert "latency_ratio_cuda_batch16" in loaded.costs and "latency_ratio_cuda_batch16" not in loaded.predicted
    cell = save_planned(tmp_path / "without", "width", 0.5)
    latency = {MeasurementKey(device="cuda", batch_size=16): 0.5}
    plan_note("width", 0.5, predicted=Predicted(macs_ratio=0.5, params_ratio=0.5, latency_ratio=latency)).save(cell)
    (loaded,) = load_fronts(tmp_path / "without").cells
    assert set(loaded.predicted) - set(loaded.costs) == {"latency_ratio_cuda_batch16"}


def test_what_has_not_finished_is_listed_with_its_reason(tmp_path: Path) -> None:
    half = planned_record("depth", 0.7)
    save(half.model_copy(update={"finished": False, "steps": half.steps[:2]}), tmp_path / "depth_0.7" / "seed0")
    plan_note("depth", 0.7).save(tmp_path / "depth_0.7" / "seed0")
    planned = tmp_path / "width_0.7" / "seed0"
    planned.mkdir(parents=True)
    plan_note("width", 0.7).save(planned)
    failed = tmp_path / "plain_smaller" / "seed0"
    failed.mkdir(parents=True)
    (failed / "failed.txt").write_text("the loss is not finite\n")
    fronts = load_fronts(tmp_path, expected=["dense_control/seed4"])
    assert (fronts.cells, fronts.costs) == ((), ())
    told = {gap.place.name: gap.reason for gap in fronts.not_run}
    assert len(told) == 8  # four variants, seeds 0 and 4
    assert told["depth_0.7/seed0"] == "stopped: 1 of 2 stages are done"
    assert told["width_0.7/seed0"] == "planned, but not begun"
    assert told["plain_smaller/seed0"] == "failed: the loss is not finite"
    assert told["dense_control/seed4"] == "not begun"


@pytest.mark.parametrize(
    ("made", "difference"),
    [
        (planned_record("width", 0.5, device="cuda"), "device: cpu against cuda"),
        (planned_record("width", 0.5, 1, task="tad-watch"), None),
        (planned_record("width", 0.5, 1, task="vit"), "task (but for the seed): tad-watch against vit"),
        (planned_record("width", 0.5, task="tad-watch-seed5"), "task: tad-watch against tad-watch-seed5, for the same"),
    ],
)
def test_unlike_records(made: RunRecord, difference: str | None, tmp_path: Path) -> None:
    save_planned(tmp_path, "depth", 0.5)
    odd = save(made, tmp_path / "width_0.5" / f"seed{made.recipe.seed}")
    plan_note("width", 0.5).save(odd)
    if difference is None:
        assert len(load_fronts(tmp_path).cells) == 2
        return
    with pytest.raises(RecordError) as caught:
        load_fronts(tmp_path)
    assert f"{tmp_path / 'depth_0.5' / 'seed0'} and {odd}: {difference}" in str(caught.value)
    assert "Run the cells that differ again" in str(caught.value)


def test_other_environment_and_other_dense_model(tmp_path: Path) -> None:
    save_planned(tmp_path, "depth", 0.5)
    made = planned_record("width", 0.5)
    environment = made.environment.model_copy(update={"processor": "other", "packages": {"torch": "1.0"}})
    dense = made.baseline.model_copy(update={"measurement": measurement(0.9, 1.0, 0.70)})
    changes = {"environment": environment, "steps": (dense, *made.steps[1:])}
    odd = save(made.model_copy(update=changes), tmp_path / "width_0.5" / "seed0")
    plan_note("width", 0.5).save(odd)
    with pytest.raises(RecordError) as caught:
        load_fronts(tmp_path)
    for line in (
        "processor: Intel",
        "torch: 2.15.0 against 1.0",
        "MACs (multiply-adds) of the dense model: 17234560 against 15511104",
        "quality of the dense model (test): 0.6520 against 0.7000, for the same seed",
    ):
        assert line in str(caught.value)


def test_a_sweep_may_leave_out_the_validation_split(tmp_path: Path) -> None:
    made = planned_record("depth", 0.5)
    steps = tuple(
        step.model_copy(
            update={
                "measurement": step.measurement.model_copy(
                    update={"quality": tuple(part for part in step.measurement.quality if part.split == "test")}
                )
            }
        )
        for step in made.steps
    )
    measure = made.recipe.measure.model_copy(update={"splits": ("test",)})
    recipe = made.recipe.model_copy(update={"measure": measure})
    changed = {"steps": steps, "recipe": recipe, "recipe_sha256": recipe.sha256}
    cell = save(made.model_copy(update=changed), tmp_path / "depth_0.5" / "seed0")
    plan_note("depth", 0.5).save(cell)
    (measured,) = load_fronts(tmp_path).cells
    assert list(measured.quality) == ["test"]


def test_records_that_lack_something(tmp_path: Path) -> None:
    made = planned_record("depth", 0.5, seed=2)
    last = made.steps[-1]
    blind = last.measurement.model_copy(update={"quality": last.measurement.quality[:1]})
    blind = blind.model_copy(update={"latency": last.measurement.latency[:1]})
    steps = (*made.steps[:-1], last.model_copy(update={"measurement": blind}))
    cell = save(made.model_copy(update={"steps": steps}), tmp_path / "depth_0.5" / "seed0")
    plan_note("depth", 0.5).save(cell)
    with pytest.raises(RecordError) as caught:
        load_fronts(tmp_path)
    assert f"{cell}: its recipe has seed 2" in str(caught.value)
    assert "step 2 has no quality on test" in str(caught.value)
    assert "step 2 or the dense model was not timed" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "width"}, "its family is width, but its folder is depth_0.5"),
        ({"budget": "macs=0.5"}, "planned for macs=0.5, but another cell named 0.5 for latency=0.5"),
    ],
)
def test_plans_that_contradict_their_folder(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_planned(tmp_path, "combined", 0.5)
    plan_note("depth", 0.5, **changes).save(save_planned(tmp_path, "depth", 0.5))
    with pytest.raises(RecordError, match=message):
        load_fronts(tmp_path)


def test_contradictory_folders(tmp_path: Path) -> None:
    cell = save_infeasible(tmp_path, "depth", 0.35)
    plan_note("depth", 0.35).save(cell)
    with pytest.raises(RecordError, match=r"holds infeasible.txt beside a plan or a run"):
        load_fronts(tmp_path)
    (cell / "infeasible.txt").unlink()
    save(planned_record("depth", 0.35), cell)
    (cell / PLAN_FILE).unlink()
    save_planned(tmp_path, "width", 0.35)
    with pytest.raises(RecordError, match=r"variant is finished, but plan.json is missing"):
        load_fronts(tmp_path)
    (cell / PLAN_FILE).write_text("{")
    with pytest.raises(RecordError, match=r"missing or damaged"):
        load_fronts(tmp_path)


def test_sweeps_without_plans_and_other_folders(tmp_path: Path) -> None:
    run = save(control_record("dense_control", 1.0, 0.0), tmp_path / "dense_control" / "seed0")
    assert holds_fronts(tmp_path)
    assert not holds_fronts(run)
    assert not holds_fronts(tmp_path / "nowhere")
    with pytest.raises(RecordError, match="give the folder of a sweep with `plans`"):
        load_fronts(tmp_path)


def test_bypasses_are_told_and_written(tmp_path: Path) -> None:
    cell = save_planned(tmp_path, "depth", 0.5)
    (found,) = load_fronts(tmp_path).cells
    assert gone(found) == "blocks.* with * = 3, 7, 8" and "bypassed" not in fronts_csv(load_fronts(tmp_path))
    plan_note("depth", 0.5, bypassed={"blocks.7": 16, "blocks.8": 16}).save(cell)
    (found,) = load_fronts(tmp_path).cells
    assert gone(found) == "blocks.3; blocks.* with * = 7, 8 replaced by a map of rank 16"
    assert '"{""blocks.7"": 16, ""blocks.8"": 16}"' in fronts_csv(load_fronts(tmp_path))
