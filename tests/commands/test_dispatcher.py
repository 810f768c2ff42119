"""python -m toolkit COMMAND: the same commands as python -m toolkit.COMMAND."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import __main__ as dispatcher
from toolkit.__main__ import COMMANDS, main

RECIPE = Path(__file__).parents[2] / "recipes" / "smoke.yaml"


def test_the_commands_are_the_files_of_the_package() -> None:
    assert set(COMMANDS) == {"apply", "export", "inspect", "plan", "profile", "schema", "sweep", "train"}
    assert Path(dispatcher.__file__).parent.name == "toolkit"


def test_a_command_gets_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(RECIPE), "--check"]) == 0
    assert "The recipe is valid" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["aply"]])
def test_what_is_no_command_is_told_with_the_choices(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "apply, export, inspect, plan, profile, schema, sweep, train" in told
    assert ("'aply' is not a command" in told) == bool(words)


def test_help_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "usage: python -m toolkit COMMAND" in capsys.readouterr().out
