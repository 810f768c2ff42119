"""python -m toolkit COMMAND: the same commands as python -m toolkit.COMMAND."""

from __future__ import annotations

import subprocess
import sys
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


def test_what_is_no_command_is_told_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aply"]) == 2
    told = capsys.readouterr().err
    choices = "apply, export, inspect, plan, profile, schema, sweep, train"
    assert told == f"'aply' is not a command; did you mean 'apply'? choose one of: {choices}\n"


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_without_a_command_each_one_is_explained(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    told = capsys.readouterr()
    lines = (told.err if code else told.out).splitlines()
    assert lines[0].startswith("usage: python -m toolkit COMMAND ...")
    assert lines[-1].startswith("python -m reports RUN_DIR... ")
    sentences = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:-1]}
    assert set(sentences) == set(COMMANDS)
    for sentence in sentences.values():
        assert sentence[0].islower() and sentence.endswith(".") and len(sentence) < 100


def test_the_explanation_needs_no_torch() -> None:
    program = "import sys; from toolkit.__main__ import main; main(['-h']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False).returncode == 0
