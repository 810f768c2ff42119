"""python -m toolkit.inspect --redundancy: tables, JSON, the page of a run, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.html_reading import Page
from toolkit import BlockDrop, compose, inspect, run
from toolkit.recipe.recipe import Measure
from toolkit.redundancy.report import load_redundancy
from toolkit.tasks.task_file import TaskFile

SOURCE = '''
"""A task of windows of a signal, for a residual net of 1-D convolutions."""
import torch
from torch import nn

from toolkit import ClassificationTask


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(8, 8, 3, padding=1), nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x):
        return x + self.b(torch.relu(self.a(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks, self.head = nn.Conv1d(3, 8, 3), nn.Sequential(Block(), Block()), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean(-1))


def make_task():
    def data(count):
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, 3, 12, generator=generator), torch.randint(0, 4, (count,), generator=generator)

    torch.manual_seed(0)
    return ClassificationTask(Net, Net(), train=data(90), validation=data(30), test=data(31), name="mine")
'''

LAYERS = ["stem", "blocks.0.a", "blocks.0.b", "blocks.1.a", "blocks.1.b"]


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_task.py"
    path.write_text(SOURCE)
    return path


def test_tables_and_json(task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--task", str(task_file), "--redundancy", "--examples", "6", "--json", str(tmp_path / "redundancy.json")]
    assert inspect.main(words) == 0
    printed = capsys.readouterr().out
    for expected in ("5 convolutions measured", "quarter: chosen", "every 4th: rebuilt", *LAYERS):
        assert expected in printed
    assert "nan" not in printed and "page:" not in printed
    report = load_redundancy(tmp_path)
    assert report is not None
    assert ([layer.name for layer in report.layers], report.examples) == (LAYERS, 6)


def test_a_run_keeps_the_report_of_its_model_and_shows_it(
    task_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = compose(
        task="mine", depth=BlockDrop(num_blocks=1, criterion="random"), measure=Measure(batch_sizes=(1,), repeats=3)
    )
    out = tmp_path / "run"
    run(recipe, task=TaskFile(task_file, "make_task", task_file.read_bytes()).make(), out=out)
    assert inspect.main([str(out), "--task", str(task_file), "--redundancy"]) == 0
    page = out / "report" / "index.html"
    assert f"page: {page}" in capsys.readouterr().out
    assert "Redundancy of the convolutions" in Page(page).titles
    report = load_redundancy(out)
    assert report is not None and len(report.layers) == 3  # one block is gone
    dense = ["--task", str(task_file), "--redundancy", "--json", str(out / "redundancy.json")]
    assert inspect.main(dense) == 0
    assert f"page: {page}" in capsys.readouterr().out
    assert "blocks.1.b" in Page(page).text and "blocks.0.b" in Page(page).text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--examples", "5"], "--examples and --positions are for --redundancy"),
        (["--check", "--positions", "5"], "--examples and --positions are for --redundancy"),
    ],
)
def test_settings_without_effect_are_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main(["tad-watch", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--check", "--redundancy"], ["--redundancy", "--examples", "0"]])
def test_arguments_that_make_no_sense_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        inspect.main(["tad-watch", *words])


def test_a_model_without_convolutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.py").write_text("from tests.helpers.tiny_task import TinyTask\nmake_task = TinyTask\n")
    assert inspect.main(["--task", str(tmp_path / "tiny.py"), "--redundancy", "--json", str(tmp_path / "r.json")]) == 2
    assert "has no convolution (nn.Conv1d, nn.Conv2d, nn.Conv3d)" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
