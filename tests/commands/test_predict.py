"""python -m toolkit.predict: the predictions of a run as a table and in ActivityNet's form, which give its metric."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import toolkit
from toolkit import load_record, new, predict, run
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.reinitialise.settings import Reinitialise
from toolkit.tasks.classifier import Classifier
from toolkit.tasks.tad.activitynet import predictions_from_json
from toolkit.tasks.tad.metric import mean_average_precision
from toolkit.tasks.task_file import read_task_file

MEASURE = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a task file and a run of its task."""
    folder = tmp_path_factory.mktemp("predict")
    assert new.main(["task", str(folder)]) == 0
    file = read_task_file(str(folder / "my_task.py"))
    recipe = Recipe(name="r", task="mine", stages=(Reinitialise(),), measure=MEASURE).of_own_task(file.origin)
    run(recipe, task=file.make(), out=folder / "run")
    return folder


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_classifier_gives_a_row_per_example(split: str, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "more" / "out.csv"
    words = [str(folder / "run"), "--task", str(folder / "my_task.py"), "--out", str(out), "--split", split]
    assert predict.main(words) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["example"] for row in rows] == [str(number) for number in range(500)]
    assert all(0.25 <= float(row["probability"]) <= 1 for row in rows)
    hits = sum(row["label"] == row["predicted"] for row in rows)
    quality = load_record(folder / "run").steps[-1].measurement.quality_on(split)
    assert quality is not None and hits / 500 == quality.value


def test_one_logit_gives_the_probability_of_the_class_that_it_predicts() -> None:
    class One(Classifier):
        def batches(self, split: object, batch_size: int, *, limit: int | None = None) -> Iterator[toolkit.Batch]:
            yield toolkit.Batch((torch.tensor([[2.0], [-3.0]]),), torch.tensor([1, 1]))

    identity = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(identity.weight)
    ((_, _, first, sure), (_, _, second, surer)) = One().predictions(identity, "test").rows
    assert (first, second) == (1, 0)
    assert sure == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert surer == pytest.approx(torch.tensor(3.0).sigmoid().item())


def test_a_detector_gives_segments_that_evaluators_read(tmp_path: Path) -> None:
    for name in ("out.csv", "out.json"):
        assert predict.main(["tad-watch", "--out", str(tmp_path / name), "--split", "validation"]) == 0
    task = toolkit.make_task("tad-watch")
    read = predictions_from_json(json.loads((tmp_path / "out.json").read_text()))
    value = task.evaluate(task.load_baseline(), "validation").value
    assert mean_average_precision(task.truth("validation"), read).average == pytest.approx(value)  # type: ignore[attr-defined]
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert set(rows[0]) == {"stream", "start_s", "end_s", "label", "score"}
    assert len(rows) == sum(len(found.labels) for found in read.values())


def test_another_file_than_the_runs_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.py"
    other.write_text((folder / "my_task.py").read_text() + "# changed\n")
    assert predict.main([str(folder / "run"), "--task", str(other), "--out", str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr().out
    assert "the run was made with my_task.py:make_task (SHA-256 " in printed and f"{other} differs" in printed


def test_what_cannot_be_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, taken = str(folder / "my_task.py"), tmp_path / "taken.csv"
    taken.write_text("")
    cases = [
        ([str(folder / "run"), "--task", task], "out.txt", "must end with one of: .csv, .json"),
        ([str(folder / "run"), "--task", task], "taken.csv", "exists already"),
        ([str(folder / "run"), "--task", task], "out.json", "this task predicts no segments"),
        ([str(folder / "run")], "out.csv", "which is your own; give its file again: --task my_task.py, whose SHA-256"),
        (["torchvision/resnet18"], "out.csv", "task 'zoo' gives no predictions; give it the method"),
    ]
    for words, name, message in cases:
        assert predict.main([*words, "--out", str(tmp_path / name)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert name == "taken.csv" or not (tmp_path / name).exists()
