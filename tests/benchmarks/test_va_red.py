"""The benchmark of dynamic layers: every row on a small net, choices that are told, what is kept, the tables."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.conv_nets import conv_task
from toolkit.base.console import Console
from toolkit.base.errors import RecordError
from toolkit.benchmarks.va_red import table as table_file
from toolkit.benchmarks.va_red.bench import DynamicBench
from toolkit.benchmarks.va_red.cells import cell_file, load_cell, load_cells, save_cell
from toolkit.benchmarks.va_red.rows import STUDIES, Study
from toolkit.benchmarks.va_red.table import write_tables
from toolkit.benchmarks.va_red.told import Told, decided, macs_of_rows
from toolkit.checkpoint.load import load_model
from toolkit.measure.macs import count_macs
from toolkit.recipe.recipe import Measure
from toolkit.tasks.classification import ClassificationTask
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Split, Strata

LEVEL = "strong"


class ClipTask:
    """Tells whether a clip changes in time; targets are the class, and training clips of class 0 count as still."""

    def __init__(self, task: ClassificationTask) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def strata(self, split: Split) -> Strata:
        return Strata(("still", "moving"), torch.arange(self._task.num_examples(split)) % 2)


def groups(targets: Any) -> list[str]:
    return ["still" if target == 0 else "moving" for target in targets.tolist()]


STUDY = Study(
    name="clips",
    tasks=("clips",),
    weights={LEVEL: 50.0},
    policy_steps=30,
    steps=32,
    learning_rate=5e-2,
    later_rate=1e-3,
    true_groups=groups,
    rule={"still": (2, 1)},
    batch_size=8,
    measure=Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0),
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> DynamicBench:
    folder = tmp_path_factory.mktemp("va_red")
    task: Any = ClipTask(conv_task())
    made = DynamicBench(STUDY, folder / "out", folder / "work", lambda _: task, Console(io.StringIO()))
    for row, level in STUDY.rows():
        made.do(row, level, 0)
    return made


def cell_of(bench: DynamicBench, row: str, level: str = LEVEL) -> Any:
    return load_cell(cell_file(bench.out, STUDY.name, row, level, 0))


def test_every_row_is_run_and_kept(bench: DynamicBench) -> None:
    cells = load_cells(bench.out)
    assert {(cell.row, cell.level) for cell in cells} == set(STUDY.rows())
    assert not any(cell.reason for cell in cells)
    assert bench.do("policy", LEVEL, 0) == "finished already"
    assert cell_of(bench, "constant").macs <= cell_of(bench, "policy").macs
    assert cell_of(bench, "oracle").macs <= cell_of(bench, "policy").macs
    assert cell_of(bench, "constant_free").macs == cell_of(bench, "constant").macs


def test_a_policy_that_saves_nothing_has_no_constant_to_compare(bench: DynamicBench, tmp_path: Path) -> None:
    other = dataclasses.replace(bench, out=tmp_path)
    policy = cell_of(bench, "policy")
    save_cell(
        cell_file(tmp_path, STUDY.name, "policy", LEVEL, 0), policy.model_copy(update={"macs": policy.dense_macs})
    )
    assert "it saves nothing" in other.do("constant", LEVEL, 0)
    assert load_cells(tmp_path)[0].reason


def test_told_what_it_would_choose_a_model_does_the_same(bench: DynamicBench) -> None:
    task: Any = bench.make_task("clips")
    model = load_model(bench.work / STUDY.name / f"policy_{LEVEL}_seed0", task.build_model())
    pool = decided(model, (batch.inputs for batch in task.batches("test", 7)))
    rows = torch.arange(len(pool))
    assert evaluate(task, Told(model, pool.at(rows)), "test") == evaluate(task, model, "test")
    (example,) = task.batches("test", 1, limit=1)
    (gates,) = {sum(layer.gate.macs for layer in model.modules() if getattr(layer, "gate", None) is not None)}
    assert macs_of_rows(model, example.inputs, pool)[0] == count_macs(model, example.inputs).total - gates


def test_choices_of_others_are_as_dear_as_the_policys(bench: DynamicBench) -> None:
    policy, shuffled = cell_of(bench, "policy"), cell_of(bench, "shuffled")
    assert shuffled.of_inputs.deviation == pytest.approx(policy.of_inputs.deviation)
    assert policy.macs - shuffled.macs > 0  # the gates, which nobody needs who does not look


def test_the_oracle_takes_one_row_for_each_group(bench: DynamicBench) -> None:
    spread = cell_of(bench, "oracle").of_inputs
    assert set(spread.by_group) == {"still", "moving"}
    assert len({count for count in spread.counts if count}) <= 2
    assert spread.by_group["still"] <= spread.by_group["moving"]


def test_the_rule_is_followed_and_its_constant_costs_no_more(bench: DynamicBench) -> None:
    oracle = cell_of(bench, "rule_oracle", "")
    assert oracle.of_inputs.by_group["moving"] == oracle.dense_macs > 2 * oracle.of_inputs.by_group["still"]
    assert cell_of(bench, "rule_constant", "").macs <= oracle.macs


def test_models_are_timed_later_and_once(bench: DynamicBench) -> None:
    assert "of the dense latency at batch 1" in bench.time("policy", LEVEL, 0)
    assert bench.time("policy", LEVEL, 0) == "timed already"
    assert bench.time("random", LEVEL, 0) == "is not timed"


def test_the_tables_hold_every_row_the_groups_and_the_comparison(
    bench: DynamicBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "STUDIES", {STUDY.name: STUDY})
    text = write_tables(bench.out).read_text()
    for words in (
        "policy (strong)",
        "oracle gates, trained as long (strong)",
        "by true group",
        "One row minus another",
    ):
        assert words in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1


def test_studies_have_a_task_for_each_seed_and_steps_left_to_settle() -> None:
    for study in STUDIES.values():
        assert len(study.tasks) == 3 and study.policy_steps < study.steps
        assert dataclasses.replace(study, true_groups=None).rows() == [
            pair for pair in study.rows() if pair[0] != "oracle"
        ]


def test_a_damaged_cell_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cells" / "clips" / "dense_seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(RecordError, match=r"dense_seed0\.json holds no cell"):
        load_cells(tmp_path)
