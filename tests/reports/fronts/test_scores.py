"""What the numbers of a planner's sweep say: areas over counted budgets, verdicts, misses, and plans in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.fronts.cells import load_fronts
from reports.fronts.hypervolume import hypervolume
from reports.fronts.scores import areas, counted, groups, misses, reached, verdicts
from reports.fronts.words import together, told, widths
from tests.helpers.example_fronts import DENSE, plan_note, save_infeasible, save_planned, save_sweep
from toolkit.measure.results import MeasurementKey
from toolkit.record.plan import Predicted
from toolkit.stages.channel_prune.settings import Heads


def test_groups_go_from_loose_to_tight_and_controls_come_last(tmp_path: Path) -> None:
    found = groups(load_fronts(save_sweep(tmp_path)))
    budgets = [f"latency={value}" for value in (0.7, 0.5, 0.35)]
    planned = [(family, budget) for family in ("depth", "width", "combined") for budget in budgets]
    assert [(group.family, group.label) for group in found] == [
        *planned,
        (None, "dense_control"),
        (None, "plain_smaller"),
    ]
    assert [(len(group.cells), len(group.infeasible), len(group.not_run)) for group in found] == [
        (3, 0, 0), (3, 0, 0), (0, 3, 0), (3, 0, 0), (3, 0, 0), (3, 0, 0), (3, 0, 0), (2, 0, 1), (3, 0, 0), (3, 0, 0),
        (3, 0, 0),
    ]  # fmt: skip


def test_areas_are_over_the_budgets_that_all_families_have_run(tmp_path: Path) -> None:
    fronts = load_fronts(save_sweep(tmp_path))
    every = ["latency=0.7", "latency=0.5", "latency=0.35"]
    assert counted(fronts) == {0: every, 1: every, 2: ["latency=0.7", "latency=0.35"]}
    area = next(area for area in areas(fronts, counted(fronts)) if area.cost.key == "macs_ratio")
    for axis in ("depth", "width", "combined"):
        mine = [cell for cell in fronts.cells if (cell.place.family, cell.place.seed) == (axis, 2)]
        points = [(cell.costs["macs_ratio"], cell.quality["test"]) for cell in mine if cell.place.budget != every[1]]
        assert area.of_family[axis][2] == pytest.approx(hypervolume(points, (1.0, DENSE[2] - 0.10)))
    best = [max(pair) for pair in zip(area.of_family["depth"], area.of_family["width"], strict=True)]
    pairs = zip(area.of_family["combined"], best, strict=True)
    assert area.ratios == pytest.approx([combined / single for combined, single in pairs])


def test_a_family_without_a_feasible_plan_covers_nothing(tmp_path: Path) -> None:
    save_planned(tmp_path, "combined", 0.5)
    save_infeasible(tmp_path, "depth", 0.5)
    save_infeasible(tmp_path, "width", 0.5)
    fronts = load_fronts(tmp_path)
    area = areas(fronts, counted(fronts))[0]
    assert area.of_family["depth"] == area.of_family["width"] == (0.0,)
    assert area.of_family["combined"][0] > 0.0
    assert area.ratios == ()  # no win over nothing
    assert reached(fronts) == {0: []}
    assert areas(fronts, reached(fronts))[0].of_family["combined"] == ()


@pytest.mark.parametrize(
    ("qualities", "answer", "differences"),
    [
        ({"depth": 0.60, "width": 0.61, "combined": 0.62}, "yes", [0.01]),
        ({"depth": 0.60, "width": 0.61, "combined": 0.61}, "yes", [0.0]),
        ({"depth": 0.62, "width": 0.61, "combined": 0.615}, "no", [-0.005]),
        ({"width": 0.61, "combined": 0.62}, "yes", [0.01]),
        ({"combined": 0.62}, "only feasible family", []),
        ({"depth": 0.60, "width": 0.61}, "combined infeasible", []),
        ({}, "no family feasible", []),
    ],
)
def test_verdict(qualities: dict[str, float], answer: str, differences: list[float], tmp_path: Path) -> None:
    save_planned(tmp_path, "depth", 0.9)  # names the budget
    for family in ("depth", "width", "combined"):
        if family in qualities:
            save_planned(tmp_path, family, 0.5, quality=qualities[family])
        else:
            save_infeasible(tmp_path, family, 0.5)
    loose, tight = verdicts(load_fronts(tmp_path))
    assert (loose.budget, loose.answer) == ("latency=0.9", "not run")
    assert tight.answer == answer
    assert tight.differences == pytest.approx(differences)


def test_verdict_compares_within_a_seed(tmp_path: Path) -> None:
    """Seed 0: a clear loss. Seed 1: depth is infeasible, and width beaten narrowly. Seed 2: combined is infeasible."""
    for family, quality in (("depth", 0.70), ("width", 0.60), ("combined", 0.65)):
        save_planned(tmp_path, family, 0.5, 0, quality=quality)
    save_infeasible(tmp_path, "depth", 0.5, 1)
    save_planned(tmp_path, "width", 0.5, 1, quality=0.60)
    save_planned(tmp_path, "combined", 0.5, 1, quality=0.61)
    save_planned(tmp_path, "depth", 0.5, 2, quality=0.10)
    save_planned(tmp_path, "width", 0.5, 2, quality=0.10)
    save_infeasible(tmp_path, "combined", 0.5, 2)
    (verdict,) = verdicts(load_fronts(tmp_path))
    assert verdict.differences == pytest.approx([-0.05, 0.01])
    assert verdict.difference == pytest.approx(-0.05), "depth in seed 0 alone"
    assert verdict.answer == "no"


def test_verdict_is_of_means(tmp_path: Path) -> None:
    """Combined is never the best of its seed, and better than either axis on the mean."""
    made = {"depth": (0.70, 0.60), "width": (0.60, 0.70), "combined": (0.69, 0.69)}
    for family, qualities in made.items():
        for seed, quality in enumerate(qualities):
            save_planned(tmp_path, family, 0.5, seed, quality=quality)
    (verdict,) = verdicts(load_fronts(tmp_path))
    assert verdict.differences == pytest.approx([-0.01, -0.01])
    assert verdict.difference == pytest.approx(0.04)
    assert verdict.answer == "yes"


def test_misses(tmp_path: Path) -> None:
    made = {"depth": 1.05, "width": 0.8, "combined": 0.95}
    for family, factor in made.items():
        cell = save_planned(tmp_path, family, 0.5)
        costs = next(cell.costs for cell in load_fronts(tmp_path).cells if cell.place.family == family)
        latency = {MeasurementKey(device="cpu", batch_size=1): factor * costs["latency_ratio_cpu_batch1"]}
        plan_note(family, 0.5, predicted=Predicted(macs_ratio=1, params_ratio=1, latency_ratio=latency)).save(cell)
    single, batch = misses(load_fronts(tmp_path))
    assert {cell.place.family: miss for cell, miss in single.misses} == pytest.approx(
        {"depth": 0.05, "width": -0.2, "combined": -0.05}
    )
    assert single.share_within == pytest.approx(2 / 3)
    assert single.largest[0].place.family == "width"
    assert (batch.misses, batch.unmatched, single.unmatched) == ((), 3, 0)


def test_plans_in_words(tmp_path: Path) -> None:
    assert together(["blocks.7", "blocks.0", "blocks.1", "blocks.2"]) == "blocks.* with * = 0–2, 7"
    assert together(["blocks.10", "blocks.9", "neck"]) == "blocks.* with * = 9, 10; neck"
    assert together(["layer1.0.conv", "layer1.1.conv"]) == "layer1.*.conv with * = 0, 1"
    assert together(["stages.0.blocks.1", "stages.1.blocks.0"]) == "stages.*.blocks.* with * = 0.1, 1.0"
    kept: dict[str, int | Heads] = {"b.0.fc": 64, "b.1.fc": 8, "b.2.fc": 64, "b.0.attn": Heads(heads=2, head_dim=8)}
    assert widths(kept) == ["64: b.*.fc with * = 0, 2", "8: b.1.fc", "2 heads × 8: b.0.attn"]
    save_planned(tmp_path, "depth", 0.5, quality=0.640)
    fronts = load_fronts(tmp_path)
    lines = told(fronts.cells[0], fronts)
    assert lines[:3] == [
        "depth only, latency=0.5, seed 0",
        "dropped blocks: blocks.* with * = 3, 7, 8",
        "widths: unchanged",
    ]
    assert lines[3].startswith("latency, cpu, batch 1: predicted 0.500, measured 0.")
    assert lines[-1] == "test mAP minus dense: −0.012 (0.640 against 0.652)"
