"""Adding a stage, and a task with settings, takes its folder, its place in two lists (one for a task), and a recipe.

A copy of the tree gets both (`tests/data/added`) and runs a recipe with them in a process of its own: through the
check, the run with its closing table, the page, and the model that is loaded again by the folder alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADDED = ROOT / "tests" / "data" / "added"

PROGRAM = """
import sys, torch
from pathlib import Path
import toolkit
from toolkit.apply import main

torch.set_num_threads(1)
recipe, *bad = sys.argv[1:]
assert main([recipe, "--check"]) == 0
assert [main([one, "--check"]) for one in bad] == [2, 2]
assert main([recipe, "--out", "runs/added"]) == 0
assert main([recipe, "--out", "runs/added", "--resume"]) == 0
model = toolkit.load_model("runs/added")
print("blocks left:", sum(type(part).__name__ == "Block" for part in model.modules()))
resolved = toolkit.load_recipe("runs/added/recipe.resolved.yaml")
assert resolved.sha256 == toolkit.load_record(Path("runs/added")).recipe_sha256
"""


def put_in(file: Path, before: str, line: str) -> None:
    """Adds a line before the first one that begins with `before`."""
    text = file.read_text()
    place = text.index(f"\n{before}") + 1
    file.write_text(text[:place] + line + "\n" + text[place:])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The copied tree, and what its process printed."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("toolkit", "reports"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copytree(ADDED / "stages" / "round_weights", tree / "toolkit" / "stages" / "round_weights")
    shutil.copytree(ADDED / "tasks" / "ramps", tree / "toolkit" / "tasks" / "ramps")
    settings, registry = tree / "toolkit" / "stages" / "settings.py", tree / "toolkit" / "stages" / "registry.py"
    put_in(settings, "Stage = ", "from toolkit.stages.round_weights.settings import RoundWeights")
    settings.write_text(
        settings.read_text().replace("BlockDrop | ChannelPrune |", "RoundWeights | BlockDrop | ChannelPrune |")
    )
    put_in(registry, "STAGES", "from toolkit.stages.round_weights.apply import apply_round_weights")
    put_in(registry, "}", '    "round_weights": apply_round_weights,')
    cards = tree / "toolkit" / "tasks" / "cards.py"
    put_in(cards, "TASKS", "from toolkit.tasks.ramps.card import CARD as RAMPS")
    cards.write_text(cards.read_text().replace("(WATCH, ", "(RAMPS, WATCH, "))
    recipe, of_form, of_meaning = tree / "recipe.yaml", tree / "form.yaml", tree / "meaning.yaml"
    text = (ADDED / "recipe.yaml").read_text()
    recipe.write_text(text)
    twice = text.replace("decimals: 2}", "decimals: 2}\n  - {type: round_weights, decimals: 3}")
    of_form.write_text(twice.replace("channels: 8", "channels: 8, colour: red"))
    of_meaning.write_text(text.replace("channels: 8", "channels: 1").replace("num_blocks: 1", "num_blocks: 3"))
    command = [sys.executable, "-c", PROGRAM, recipe.name, of_form.name, of_meaning.name]
    environment = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PATH": ""}
    ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return tree, ran


def test_it_runs(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert done[1].returncode == 0, done[1].stderr
    assert "blocks left: 2" in done[1].stdout


def test_it_is_estimated_and_resolved(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert "Estimated run time: about 10 min" in done[1].stdout
    assert "task:\n  type: ramps\n  channels: 8\n  num_blocks: 3\n" in done[1].stdout


def test_its_faults_have_their_lines(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert [line.partition(";")[0] for line in done[1].stderr.splitlines()] == [
        "form.yaml:3: task.colour: unknown key",
        "form.yaml:9: stages.2.decimals: an earlier stage rounds to no more decimals than that",
        "meaning.yaml:3: task.channels: there must be two channels to compare",
        "meaning.yaml:7: stages.0.num_blocks: 3 leaves no block: ramps has 3",
    ]


def test_the_closing_table_and_the_page_tell_of_it(done: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert "2 round_weights" in done[1].stdout
    page = (done[0] / "runs" / "added" / "report" / "index.html").read_text()
    assert "rounds all weights to 2 decimals" in page
    assert "num_rounded" in page, "what has no figure is shown as it was recorded"
