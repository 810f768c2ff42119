"""python -m toolkit.plan and profile: what is printed, the recipe that is written, and what is said of bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import toolkit
from tests.helpers.random_tables import random_tables, with_bypasses
from toolkit import plan, profile
from toolkit.base.console import Console
from toolkit.planning import arguments
from toolkit.planning.budget import Budget
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.session import Planner
from toolkit.planning.settings import PlanSettings
from toolkit.recipe.read import load_recipe


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[PlanSettings]:
    """Sessions with made-up tables; the list holds what they were opened with."""
    opened: list[PlanSettings] = []

    def open_made_up(task: object, settings: PlanSettings, console: Console) -> Planner:
        opened.append(settings)
        timing = TimingSettings(torch.device("cpu"), (1,), 2)
        profile = ModelProfile(task, timing, tmp_path / "tables", console)  # type: ignore[arg-type]
        vars(profile)["tables"] = vars(profile)["cost_tables"] = random_tables(0, num_contexts=2)
        return Planner(profile)

    monkeypatch.setattr(toolkit, "open_session", open_made_up)
    monkeypatch.setattr(Budget, "check_countable", lambda *_: None)
    monkeypatch.setattr(arguments, "make_task", lambda name: type("Named", (), {"name": name})())
    return opened


def call(*words: str) -> int:
    return plan.main(["tad-watch", "--evaluations", "0", *words])


def test_a_plan_is_shown_and_written(
    made_up: list[PlanSettings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "runs" / "planned.yaml"  # in a folder that is not there yet, as in a fresh clone
    assert call("--budget", "latency=0.5", "--out", str(out), "--recover-steps", "7", "--seed", "3") == 0
    printed = capsys.readouterr().out
    assert "combined, latency=0.5: depth_then_width" in printed
    assert "predicted latency@1 on cpu: 0." in printed and "of dense" in printed
    recipe = load_recipe(out)
    assert recipe.task == "tad-watch" and recipe.seed == 3
    assert recipe.stages[-1].max_steps == 7  # type: ignore[union-attr]
    assert out.read_text().startswith("# Planned for latency=0.5: combined, cpu, batch 1, 2 threads.\n# Command: ")
    assert made_up[0].batch_sizes == (1, 16, 1)


def test_nothing_is_timed_where_no_latency_is_limited(made_up: list[PlanSettings]) -> None:
    assert call("--budget", "macs=0.5") == call("--budget", "macs=0.6", "--batch-sizes", "4") == 0
    assert call("--budget", "macs=0.5", "latency=0.9") == 0
    assert [settings.batch_sizes for settings in made_up] == [(), (4,), (1, 16, 1)]


def test_a_bypass_is_told(
    made_up: list[PlanSettings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = with_bypasses(random_tables(0), seed=1)
    monkeypatch.setattr("tests.commands.test_plan.random_tables", lambda *_, **__: tables)
    assert call("--budget", "latency=0.35", "--out", str(tmp_path / "planned.yaml"), "--family", "depth") == 0
    printed = capsys.readouterr().out
    drops = [stage for stage in load_recipe(tmp_path / "planned.yaml").stages if stage.type == "block_drop"]
    ranks = {stage.rank for stage in drops if stage.repair == "fold_and_bypass"}
    assert ranks and ranks <= {None, 16}
    assert ("replaced by a map of rank 16" in printed) == (16 in ranks)
    assert ("replaced by a full map" in printed) == (None in ranks)
    assert profile.main(["tad-watch", "--batch-sizes", "1", "--no-bypass"]) == 0
    assert "blocks.0, replaced by a full map" in capsys.readouterr().out
    assert [settings.bypass for settings in made_up] == [True, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budget", "latency=0.001"), "no plan of family combined reaches latency=0.001; the nearest feasible"),
        (("--budget", "speed=2"), "--budget speed=2: is not a limit; give latency=0.5"),
        (("--budget", "latency=0.5", "latency=0.4"), "latency is given twice"),
    ],
)
def test_bad_budgets(
    made_up: list[PlanSettings], words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_an_unknown_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan.main(["tad", "--budget", "macs=0.5"]) == 2
    assert "'tad' is not a known task; choose one of: tad-watch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("--device", "tpu"), ("--threads", "0"), ("--batch-sizes", "-1"), ("--family", "both"), ("--evaluations", "-1")],
)
def test_bad_options(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        plan.main(["tad-watch", "--budget", "macs=0.5", *words])
    assert stopped.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_no_cuda_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(arguments, "make_task", lambda name: type("Named", (), {"name": name})())
    assert plan.main(["tad-watch", "--budget", "macs=0.5", "--device", "cuda"]) == 2
    assert "torch finds no CUDA device here" in capsys.readouterr().err
    assert profile.main(["tad-watch", "--device", "cuda"]) == 2


def test_a_profile_is_shown(made_up: list[PlanSettings], capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["tad-watch", "--batch-sizes", "1"]) == 0
    printed = capsys.readouterr().out
    assert "blocks.5" in printed and "all else" in printed and "cpu batch 1" in printed


def test_budgets_are_public() -> None:
    assert toolkit.Budget is Budget
