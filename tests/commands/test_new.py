"""python -m toolkit.new task: the files that it writes run as they are, and nothing is overwritten."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.helpers.slow import cases
from toolkit import load_recipe, load_record, new
from toolkit.__main__ import main
from toolkit.starters.registry import STARTERS

QUICK = ["measure.repeats=3", "measure.warmup=0", "measure.batch_sizes=[1]", "stages.2.max_steps=10"]


@pytest.mark.parametrize("kind", STARTERS)
def test_the_files_of_each_kind_are_those_on_disk(kind: str) -> None:
    folder = Path(new.__file__).parent / "starters" / "files" / kind
    assert sorted(STARTERS[kind].files) == sorted(path.name.removesuffix(".txt") for path in folder.iterdir())
    for name in STARTERS[kind].files:
        assert max(map(len, STARTERS[kind].text(name).splitlines())) <= 120


@pytest.mark.parametrize("quick", cases((True, False), in_suite=(True,)))
def test_the_task_runs_as_it_is(quick: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my first"
    assert new.main(["task", str(folder)]) == 0
    printed = capsys.readouterr().out
    commands = [shlex.split(line)[1:] for line in printed.partition("next:\n")[2].splitlines()]
    assert [words[0] for words in commands] == ["inspect", "apply", "apply"]
    more = [part for word in QUICK for part in ("--set", word)] if quick else []
    for words in commands[1:]:
        assert main([*words, "--out", str(tmp_path / "run"), *more]) == 0
    record = load_record(tmp_path / "run")
    assert record.finished and record.recipe.own_task is not None and record.recipe.own_task.file == "my_task.py"
    measured = [step.measurement for step in record.steps]
    share = measured[-1].macs.ratio_to(measured[0].macs)
    assert share is not None and share == pytest.approx(0.5, abs=0.02)
    test = measured[0].quality_on("test")
    assert test is not None and test.value > 0.5, "the made-up net has learnt something: a quarter is chance"
    assert len(load_recipe(folder / "recipe.yaml").stages) == 3
    if not quick:
        assert main(commands[0]) == 0


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("mine")
    assert new.main(["task", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path / 'recipe.yaml'}: exists already; choose another folder, or remove the file\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    assert new.main(["task", str(tmp_path / "recipe.yaml")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'recipe.yaml'}: is a file; choose another folder\n"


def test_a_kind_that_is_none_is_told_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        new.main(["pictures", "x"])
    assert caught.value.code == 2 and "choose from" in capsys.readouterr().err
