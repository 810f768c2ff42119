"""--task FILE.py: a task of one's own is as good as a built-in one in every command, and its run knows the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import toolkit
from tests.helpers.random_tables import random_tables
from tests.helpers.tiny_task import TinyTask
from toolkit import apply, export, inspect, load_recipe, load_record, plan, profile, run, sweep, train
from toolkit.base.console import Console
from toolkit.base.errors import RecipeError, UserError
from toolkit.base.files import file_sha256
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.session import Planner
from toolkit.planning.settings import PlanSettings
from toolkit.recipe.compose import compose
from toolkit.recipe.recipe import Measure
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.tasks.origin import TaskOrigin

SOURCE = """\
from tests.helpers.tiny_task import TinyTask


class Mine(TinyTask):
    name = "mine"


def make_task():
    return Mine()
"""
STAGE = "{type: block_drop, num_blocks: 1, criterion: random}"
MEASURE = "{batch_sizes: [1], threads: 1, repeats: 3, warmup: 0}"
RECIPE = f"version: 1\nname: r\ntask: mine\nseed: 0\ndevice: cpu\nstages:\n  - {STAGE}\nmeasure: {MEASURE}\n"
SWEEP = f"""\
version: 1
name: s
device: cpu
seeds:
  - {{seed: 0, task: mine}}
variants:
  drop:
    - {STAGE}
measure: {MEASURE}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a task file, a recipe, a sweep, and the run of the recipe."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in (("my_task.py", SOURCE), ("recipe.yaml", RECIPE), ("sweep.yaml", SWEEP)):
        (folder / name).write_text(text)
    words = [str(folder / "recipe.yaml"), "--task", str(folder / "my_task.py")]
    assert apply.main([*words, "--out", str(folder / "run")]) == 0
    return folder


def test_the_run_remembers_the_file(folder: Path) -> None:
    own = load_record(folder / "run").recipe.own_task
    assert own == TaskOrigin(file="my_task.py", function="make_task", sha256=file_sha256(folder / "my_task.py"))
    text = (folder / "run" / "recipe.resolved.yaml").read_text()
    assert "own_task:\n  file: my_task.py\n" in text and str(folder) not in text


def test_its_resolved_recipe_is_read_again_and_run_again_with_the_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resolved = folder / "run" / "recipe.resolved.yaml"
    assert load_recipe(resolved) == load_recipe(folder / "run") == load_record(folder / "run").recipe
    assert apply.main([str(resolved), "--check"]) == 0
    assert apply.main([str(resolved), "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert "the recipe's task 'mine' is one of your own, made by my_task.py:make_task (SHA-256 " in error
    sha256 = file_sha256(folder / "my_task.py")
    assert f"give its file again: --task my_task.py, whose SHA-256 began with {sha256[:12]}" in error
    words = [str(resolved), "--task", str(folder / "my_task.py"), "--out", str(tmp_path / "b")]
    assert apply.main(words) == 0


def test_so_is_that_of_a_task_from_a_program(tmp_path: Path) -> None:
    recipe = compose(task="tiny", depth=BlockDrop(num_blocks=1, criterion="random"))
    recipe = recipe.model_copy(update={"measure": Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)})
    record = run(recipe, task=TinyTask(), out=tmp_path / "run")
    assert record.recipe.own_task == TaskOrigin()
    assert load_recipe(tmp_path / "run" / "recipe.resolved.yaml") == record.recipe
    assert run(recipe, task=TinyTask(), out=tmp_path / "run", resume=True).finished


def test_another_file_does_not_go_on_with_the_run(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.py"
    words = [str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--resume", "--task", str(other)]
    other.write_text(SOURCE)
    assert apply.main(words) == 0, "a moved file is the same"
    other.write_text(SOURCE + "# changed\n")
    capsys.readouterr()
    assert apply.main(words) == 2
    error = capsys.readouterr().err
    assert (
        "was begun with the task of my_task.py:make_task (SHA-256 " in error and "but this one is of other.py" in error
    )
    assert "start a new run with another --out" in error


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({}, '"tad-watch" is built in, so own_task says nothing about it; leave own_task out'),
        ({"sha256": "abc"}, "own_task.sha256"),
        ({"module": "os"}, "own_task.module: unknown key"),
    ],
)
def test_a_note_that_cannot_be(own: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("task: mine", f"task: tad-watch\nown_task: {json.dumps(own)}"))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_recipe_without_note_or_file_is_as_unknown_as_ever(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main([str(folder / "recipe.yaml"), "--check"]) == 2
    error = capsys.readouterr().err
    assert 'task: "mine" is not a known task' in error and "your own: give its file with --task FILE.py" in error
    with pytest.raises(RecipeError, match='"mine" is not a known task'):
        run(load_recipe(folder / "recipe.yaml"), out=folder / "never")
    assert not (folder / "never").exists()


def test_load_recipe_reads_it_whatever_its_task_and_checks_the_rest(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    assert (recipe.task, recipe.own_task) == ("mine", None)
    mine = TinyTask()
    mine.name = "mine"
    assert run(recipe, task=mine, out=tmp_path / "run").finished
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("num_blocks: 1", "num_blocks: 0"))
    with pytest.raises(RecipeError, match=r"stages\.0\.num_blocks: 0 is out of range"):
        load_recipe(path)
    path.write_text(RECIPE.replace("random}", "random, blocks: [a]}").replace("device: cpu", "device: gpu"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert "not a known task" not in str(caught.value), "nor beside other faults"


def test_check_runs_nothing_of_the_file_and_build_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "recipe.yaml"), "--check", "--task", str(folder / "my_task.py")]
    broken = folder / "broken.py"
    broken.write_text("raise RuntimeError('was run')\n")
    assert apply.main([*words[:3], str(broken)]) == 0
    assert apply.main([*words[:3], str(broken), "--build"]) == 2
    assert f"{broken}:1: RuntimeError: was run" in capsys.readouterr().err
    assert apply.main([*words, "--build"]) == 0
    printed = capsys.readouterr().out
    assert "# Can whole blocks be dropped (depth)?" in printed
    written = folder / "printed.yaml"
    written.write_text(printed)
    assert load_recipe(written).own_task is not None


def test_build_goes_with_check(folder: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        apply.main([str(folder / "recipe.yaml"), "--build"])
    assert caught.value.code == 2


def test_a_recipe_for_another_task(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("task: mine", "task: yours"))
    words = [str(recipe), "--task", str(folder / "my_task.py")]
    for more in (["--out", str(tmp_path / "run")], ["--check", "--build"]):
        assert apply.main([*words, *more]) == 2
        assert "the recipe is for task 'yours', but the task given is 'mine'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_interrupted_run_says_the_file_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(toolkit.__dict__, "run", interrupt)
    file = folder / "my_task.py"
    assert apply.main([str(folder / "recipe.yaml"), "--task", str(file)]) == 130
    assert f"--task {file} --resume" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--check"]])
def test_inspect_of_the_file_and_of_its_run(
    words: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, kept = str(folder / "my_task.py"), tmp_path / "found.json"
    assert inspect.main(["--task", file, "--json", str(kept), *words]) == 0
    dense = json.loads(kept.read_text())
    assert inspect.main([str(folder / "run"), "--task", file, "--json", str(kept), *words]) == 0
    assert json.loads(kept.read_text())["macs"] < dense["macs"]
    assert "blocks.1" in capsys.readouterr().out
    assert inspect.main([str(folder / "run"), *words]) == 2
    assert "which is your own; give its file again: --task my_task.py, whose SHA-256" in capsys.readouterr().err


def test_inspect_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([]) == 2
    assert "give a MODEL, or --task FILE.py" in capsys.readouterr().err
    assert inspect.main(["tad-watch", "--task", str(folder / "my_task.py")]) == 2
    assert "'tad-watch' is not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize("command", [profile, plan])
def test_planning_is_given_the_task(
    command: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def session(task: Any, *_: object, **__: object) -> None:
        given.append(task.name)
        raise UserError("seen")

    monkeypatch.setitem(toolkit.__dict__, "open_session", session)
    words = ["--budget", "macs=0.5"] if command is plan else []
    assert command.main(["--task", str(folder / "my_task.py"), *words]) == 2
    assert given == ["mine"]
    for wrong in ([], ["tad-watch", "--task", str(folder / "my_task.py")]):
        assert command.main([*wrong, *words]) == 2
        assert "give either the name of a task, such as tad-watch, or --task FILE.py" in capsys.readouterr().err


def test_a_plan_says_whose_task_it_is_for(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_made_up(task: Any, settings: PlanSettings, console: Console) -> Planner:
        profile = ModelProfile(task, TimingSettings(torch.device("cpu"), (1,), 2), tmp_path / "tables", console)
        vars(profile)["tables"] = vars(profile)["cost_tables"] = random_tables(0, num_contexts=2)
        return Planner(profile)

    monkeypatch.setitem(toolkit.__dict__, "open_session", open_made_up)
    out, file = tmp_path / "planned.yaml", str(folder / "my_task.py")
    words = ["--task", file, "--budget", "latency=0.8", "--evaluations", "0", "--batch-sizes", "1", "--out", str(out)]
    assert plan.main(words) == 0
    assert f"# Command: python -m toolkit.apply {out} --task {file}\n" in out.read_text()
    recipe = load_recipe(out)
    assert recipe.task == "mine" and recipe.own_task is not None and recipe.own_task.file == "my_task.py"


def test_sweep(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "sweep.yaml"), "--out", str(tmp_path / "out")]
    assert sweep.main(words) == 2
    assert '"mine" is not a known task' in capsys.readouterr().err
    words += ["--task", str(folder / "my_task.py")]
    assert sweep.main(words) == 0
    record = load_record(tmp_path / "out" / "drop" / "seed0")
    assert record.finished and record.recipe.own_task is not None and record.recipe.own_task.file == "my_task.py"
    other = tmp_path / "sweep.yaml"
    other.write_text(SWEEP.replace("task: mine", "task: tad-watch"))
    assert sweep.main([str(other), *words[1:]]) == 2
    assert "the task of your file is 'mine', but no seed has it" in capsys.readouterr().err


CONFIG = """\
task: mine
seed: 0
max_steps: 2
batch_size: 4
learning_rate: 1e-3
weight_decay: 0.0
warmup_steps: 0
ema_decay: 0.0
validate_every: 2
"""


def test_train(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = tmp_path / "train.yaml", tmp_path / "out"
    config.write_text(CONFIG)
    words = [str(config), "--out", str(out)]
    assert train.main(words) == 2
    assert '"mine" is not a known task' in capsys.readouterr().err
    words += ["--task", str(folder / "my_task.py")]
    assert train.main(words) == 0
    assert (out / "training.json").exists()
    config.write_text(CONFIG.replace("task: mine", "task: yours"))
    assert train.main([*words, "--out", str(tmp_path / "more")]) == 2
    assert "train.yaml is for task 'yours', but the task given is 'mine'" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_export(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [str(folder / "run"), "--format", "torch_export", "--repeats", "0", "--out", str(tmp_path / "x.pt2")]
    assert export.main(words) == 2
    assert "--task FILE.py" in capfd.readouterr().err
    other = tmp_path / "other.py"
    other.write_text(SOURCE.replace('"mine"', '"yours"'))
    assert export.main([*words, "--task", str(other)]) == 2
    assert "was made for 'mine', but the task file makes the task 'yours'" in capfd.readouterr().err
    assert export.main([*words, "--task", str(folder / "my_task.py")]) == 0
    assert (tmp_path / "x.pt2").exists()
