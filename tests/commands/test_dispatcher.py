"""dwt COMMAND and python -m toolkit COMMAND: the same commands as python -m toolkit.COMMAND, each with quick help."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from toolkit import __main__ as dispatcher
from toolkit.__main__ import COMMANDS, EXAMPLES, main

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "smoke.yaml"


def test_the_commands_are_the_files_of_the_package() -> None:
    assert set(COMMANDS) == {
        "apply",
        "export",
        "inspect",
        "new",
        "plan",
        "predict",
        "profile",
        "schema",
        "sweep",
        "train",
    }
    assert Path(dispatcher.__file__).parent.name == "toolkit"


def test_a_command_gets_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["apply", str(RECIPE), "--check"]) == 0
    assert "The recipe is valid" in capsys.readouterr().out


def test_what_is_no_command_is_told_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aply"]) == 2
    told = capsys.readouterr().err
    choices = "apply, export, inspect, new, plan, predict, profile, schema, sweep, train, reports"
    assert told == f"'aply' is not a command; did you mean 'apply'? choose one of: {choices}\n"


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_without_a_command_each_one_is_explained(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    told = capsys.readouterr()
    lines = (told.err if code else told.out).splitlines()
    assert lines[0].startswith("usage: dwt COMMAND ...")
    shown = lines[2 : lines.index("examples:") - 1]
    sentences = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown}
    assert set(sentences) == {*COMMANDS, "reports"}
    for sentence in sentences.values():
        assert sentence[0].islower() and sentence.endswith(".") and len(sentence) < 100


@pytest.mark.parametrize("line", [line for line in EXAMPLES.splitlines() if line.startswith("  dwt ")])
def test_the_examples_have_options_that_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *words = line.split("   ", maxsplit=1)[0].split()[1:]
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_the_script_is_installed_by_name() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["dwt"].split(":")
    assert getattr(importlib.import_module(module), name) is main


HELP = """
import sys
from toolkit.__main__ import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit:
        pass
    if "torch" in sys.modules:
        sys.exit(f"{command} imports torch for its help")
"""


def test_help_needs_no_torch() -> None:
    commands = ["", *COMMANDS, "reports"]
    command = [sys.executable, "-c", HELP, *commands]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "" and done.returncode == 0
    assert done.stdout.count("usage: ") == len(commands)


def test_a_command_that_imports_torch_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport torch\n{HELP}"
    command = [sys.executable, "-c", program, "apply"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "apply imports torch for its help\n"
