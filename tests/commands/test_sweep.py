"""Sweeps: cells, faults, resuming, failures that are written down, and the table over seeds."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

from tests.helpers.slow import cases
from tests.helpers.tiny_task import TinyTask
from toolkit import sweep
from toolkit.base.console import Console
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.recipe.recipe import Recipe
from toolkit.record.plan import load_plan_record
from toolkit.record.run import RunRecord, load_record
from toolkit.running.runner import run
from toolkit.sweeping import cells
from toolkit.sweeping.cells import LOCK_FILE, _only_process
from toolkit.sweeping.settings import read_sweep
from toolkit.zoo.build import build_zoo_model

TEXT = """\
version: 1
name: little
device: cpu
seeds:
  - {seed: 0, task: tad-watch}
  - {seed: 1, task: tad-watch}
variants:
  drop:
    - {type: block_drop, num_blocks: 1, criterion: loss}
  narrow:
    - {type: channel_prune, keep: {mlp: 0.5}, importance: random}
measure: {batch_sizes: [1], threads: 1, repeats: 3, warmup: 0, splits: [validation, test]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "little.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def on_tiny(tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every cell runs for real, on the tiny task; the list holds the names of the recipes that were run."""
    ran: list[str] = []

    def run_tiny(recipe: Recipe, **options: object) -> RunRecord:
        ran.append(recipe.name)
        recipe = recipe.model_copy(update={"task": tiny_task.name})
        return run(recipe, task=tiny_task, **options)  # type: ignore[arg-type]

    def load_as_written(out: Path) -> RunRecord:
        record = load_record(out)
        recipe = record.recipe.model_copy(update={"task": "tad-watch", "own_task": None})
        return record.model_copy(update={"recipe": recipe})

    monkeypatch.setattr(cells, "run", run_tiny)
    monkeypatch.setattr(cells, "load_record", load_as_written)
    return ran


def test_cells_are_recipes(file: Path) -> None:
    cells = dict(read_sweep(file).cells())
    assert list(cells) == ["drop/seed0", "drop/seed1", "narrow/seed0", "narrow/seed1"]
    assert cells["narrow/seed1"].seed == 1
    assert cells["narrow/seed1"].family == "width"


def test_a_sweep_runs_resumes_and_tabulates(file: Path, tmp_path: Path, on_tiny: list[str]) -> None:
    out = tmp_path / "out"
    assert sweep.main([str(file), "--out", str(out), "--only", "drop"]) == 0
    assert on_tiny == ["drop-seed0", "drop-seed1"]
    assert "Not run: narrow/seed0, narrow/seed1." in (out / "table.md").read_text()
    assert sweep.main([str(file), "--out", str(out)]) == 0
    assert on_tiny == ["drop-seed0", "drop-seed1", "narrow-seed0", "narrow-seed1"]
    rows = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert [(row["variant"], row["after"], row["seeds"]) for row in rows] == [
        ("dense", "", "2"),
        ("drop", "1 block_drop", "2"),
        ("narrow", "1 channel_prune", "2"),
    ]
    assert rows[1]["blocks left"] == "3"
    tests = [load_record(out / f"narrow/seed{i}").steps[1].measurement.quality_on("test") for i in (0, 1)]
    values = [quality.value for quality in tests if quality]
    assert rows[2]["test"].startswith(f"{sum(values) / 2:.4f}")
    assert "Not run: none." in (out / "table.md").read_text()
    assert (out / "differences.png").stat().st_size > 10_000


def test_a_failed_cell_is_written_down_and_the_rest_goes_on(
    file: Path, tmp_path: Path, on_tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(TEXT.replace("num_blocks: 1", "num_blocks: 9"))  # the tiny net has four
    out = tmp_path / "out"
    assert sweep.main([str(file), "--out", str(out)]) == 1
    assert "num_blocks is 9" in (out / "drop" / "seed0" / "failed.txt").read_text()
    assert load_record(out / "narrow" / "seed1").finished
    assert sweep.main([str(file), "--out", str(out)]) == 1
    assert on_tiny.count("drop-seed0") == 1
    assert sweep.main([str(file), "--out", str(out), "--retry-failed"]) == 1
    assert on_tiny.count("drop-seed0") == 2
    assert "failed: drop/seed0: num_blocks is 9" in capsys.readouterr().out


def test_faults_name_their_line(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXT.replace("num_blocks: 1", "num_blocks: 12").replace("{seed: 1, task: tad-watch}", "{seed: 0, task: tad}")
    file.write_text(text)
    assert sweep.main([str(file), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert [line.partition("little.yaml:")[2].partition(":")[0] for line in lines] == ["6", "6", "9"]
    assert "leaves no block" in lines[2]


def test_one_process_at_a_time(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with _only_process(out / LOCK_FILE):
        assert sweep.main([str(file), "--out", str(out)]) == 2
    assert "another process is running this sweep" in capsys.readouterr().err


HEAD, MEASURE = TEXT.partition("variants:")[0], TEXT[TEXT.index("measure") :]
PLANS = f"{HEAD}plans: {{families: [depth, width], budgets: [macs=0.6, macs=0.05], evaluations: 2}}\n{MEASURE}"


@pytest.mark.parametrize("is_known", cases((True, False), in_suite=(True,)))
def test_planned_cells_run_or_are_infeasible(
    is_known: bool, file: Path, tmp_path: Path, on_tiny: list[str], tiny_task: TinyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From tables that are there already, timed with few repeats, or from nothing."""
    file.write_text(PLANS.replace("  - {seed: 1, task: tad-watch}\n", ""))
    monkeypatch.setattr(cells, "make_task", lambda name, folder: tiny_task)
    out = tmp_path / "out"
    if is_known:
        timing = TimingSettings(torch.device("cpu"), (1,), 1, repeats=1)
        assert ModelProfile(tiny_task, timing, out / "tables", Console(io.StringIO())).tables.blocks
    assert sweep.main([str(file), "--out", str(out)]) == 0
    assert on_tiny == ["depth-macs_0.6", "width-macs_0.6"]
    assert "reaches macs=0.05; the nearest" in (out / "depth_0.05" / "seed0" / "infeasible.txt").read_text()
    note, record = load_plan_record(out / "width_0.6" / "seed0"), load_record(out / "width_0.6" / "seed0")
    reached = record.steps[-1].measurement.macs.total / record.baseline.measurement.macs.total
    assert reached == pytest.approx(note.predicted.macs_ratio) and reached <= 0.6
    assert record.recipe.family == "width" and not note.dropped
    page = (out / "index.html").read_text()
    assert "infeasible" in page.lower()
    assert sweep.main([str(file), "--out", str(out)]) == 0
    assert len(on_tiny) == 2, "nothing is run twice"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("macs=0.6", "speed=2", "plans.budgets: speed=2: is not a limit; give latency=0.5"),
        ("macs=0.05", "latency=0.6", "plans.budgets: depth_0.6 is planned twice"),
        ("[depth, width]", "[both]", "plans.families.0"),
    ],
)
def test_faults_of_plans(
    file: Path, tmp_path: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(PLANS.replace(old, new))
    assert sweep.main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_run(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(HEAD + MEASURE)
    assert sweep.main([str(file), "--out", str(tmp_path / "out")]) == 2
    assert "give variants, plans or both" in capsys.readouterr().err


def test_a_finished_cell_of_other_settings_is_not_taken_for_this_sweeps(
    file: Path, tmp_path: Path, on_tiny: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(file), "--out", str(tmp_path / "out"), "--only", "drop", "--seed", "1"]
    assert sweep.main([*words, "--set", "measure.repeats=4"]) == 0
    assert on_tiny == ["drop-seed1"]
    assert load_record(tmp_path / "out/drop/seed1").recipe.measure.repeats == 4
    for other in ("measure.repeats=3", "variants.drop.0.num_blocks=2"):
        assert sweep.main([*words, "--set", other]) == 2
        assert "drop/seed1: holds a finished run of other settings than this sweep's" in capsys.readouterr().err
    assert len(on_tiny) == 1


def test_finished_cells_are_known_again_where_weights_have_a_relative_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_zoo_model("timm/test_vit", {"num_classes": 3}).state_dict(), tmp_path / "weights.pth")
    model = "{name: timm/test_vit, arguments: {num_classes: 3}, weights: weights.pth, examples: 2}"
    measure = "{batch_sizes: [1], threads: 1, repeats: 3, warmup: 0, splits: [test]}"
    (tmp_path / "zoo.yaml").write_text(
        f"name: zoo\nmodel: {model}\nseeds: [{{seed: 0, task: zoo}}]\nvariants: {{dense: []}}\nmeasure: {measure}\n"
    )
    for _ in range(2):
        assert sweep.main([str(tmp_path / "zoo.yaml"), "--out", str(tmp_path / "deep" / "out")]) == 0
    assert capsys.readouterr().out.count("  finished\n") == 1
