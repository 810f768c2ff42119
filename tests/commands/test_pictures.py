"""Pictures of one's own from the command line alone: check, inspect, plan, apply, sweep, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.helpers.pictures import recipe, write_all, write_yaml
from toolkit import apply, export, inspect, load_model, load_recipe, load_record, plan, sweep
from toolkit.tasks.images.task import make_image_task

QUICK = ["--examples", "4", "--evaluations", "0", "--recover-steps", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With pictures, weights, a recipe, the recipe of a plan in a folder of its own, and the run of that plan."""
    folder = tmp_path_factory.mktemp("mine")
    file = write_all(folder)
    words = [str(file), "--budget", "macs=0.6", "--family", "width", *QUICK, "--tables", str(folder / "tables")]
    assert plan.main([*words, "--out", str(folder / "plans" / "smaller.yaml")]) == 0
    planned = folder / "plans" / "smaller.yaml"
    content = planned.read_text().replace("repeats: 40", "repeats: 3").replace("  - 16\n", "")
    planned.write_text(content)
    assert apply.main([str(planned), "--out", str(folder / "runs" / "smaller")]) == 0
    return folder


def test_check_tells_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert apply.main([str(folder / "recipe.yaml"), "--check"]) == 0
    text = capsys.readouterr().out
    assert "# pictures: train 36, validation 12, test 12; 3 classes (bee, cat, dog); 12 training pictures" in text
    assert "# pictures are 32 x 32 pixels, center crop 0.95, mean [0.5, 0.5, 0.5]" in text
    assert "Can whole blocks be dropped (depth)?" in text and "3 blocks" in text
    (folder / "shown.yaml").write_text(text)
    assert load_recipe(folder / "shown.yaml") == load_recipe(folder / "recipe.yaml")


def test_inspect_takes_the_recipe_and_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(folder / "recipe.yaml"), "--check"]) == 0
    assert "3 blocks" in capsys.readouterr().out
    assert inspect.main([str(folder / "runs" / "smaller"), "--json", str(folder / "costs.json")]) == 0
    assert json.loads((folder / "costs.json").read_text())["macs"] > 0


def test_the_plan_holds_the_budget(folder: Path) -> None:
    record = load_record(folder / "runs" / "smaller")
    first, last = record.steps[0].measurement, record.steps[-1].measurement
    assert first.macs.total and last.macs.total and last.macs.total <= 0.6 * first.macs.total
    assert last.quality_on("test").num_examples == 12 and last.quality_on("test").metric == "accuracy"


def test_paths_start_from_the_file_that_holds_them(folder: Path) -> None:
    for file, up in (("plans/smaller.yaml", ".."), ("runs/smaller/recipe.resolved.yaml", "../..")):
        task: Any = load_recipe(folder / file).task
        assert (task.data.folder, task.model.weights) == (f"{up}/pictures", f"{up}/weights.pth")
        assert make_image_task(task, (folder / file).parent).num_examples("test") == 12
    assert (
        apply.main([str(folder / "plans" / "smaller.yaml"), "--out", str(folder / "runs" / "smaller"), "--resume"]) == 0
    )


def test_the_exported_file_gives_the_same_classes(folder: Path) -> None:
    assert export.main([str(folder / "runs" / "smaller"), "--format", "onnx", "--repeats", "0"]) == 0
    session = onnxruntime.InferenceSession(folder / "runs" / "smaller" / "exported.onnx")
    chosen: Any = load_recipe(folder / "recipe.yaml").task
    task, model = make_image_task(chosen, folder), load_model(folder / "runs" / "smaller")
    for batch in task.batches("test", 5):
        (logits,) = session.run(None, {session.get_inputs()[0].name: batch.inputs[0].numpy()})
        assert np.allclose(logits, model(*batch.inputs).detach().numpy(), atol=1e-4)


def test_a_saved_model_holds_no_picture_and_needs_none(folder: Path) -> None:
    manifest = json.loads((folder / "runs" / "smaller" / "model" / "model.json").read_text())
    assert "pictures" not in json.dumps(manifest) and "weights.pth" not in json.dumps(manifest)


@pytest.mark.slow
def test_a_sweep_of_plans_and_variants(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {
        "version": 1,
        "name": "fronts",
        "device": "cpu",
        "seeds": [{"seed": seed, "task": recipe()["task"]} for seed in (0, 1)],
        "plans": {"budgets": ["macs=0.7"], "families": ["depth"], "evaluations": 0, "examples": 4},
        "variants": {"drop": recipe()["stages"]},
        "measure": recipe()["measure"],
    }
    file = write_yaml(folder / "sweep.yaml", content)
    assert sweep.main([str(file), "--out", str(tmp_path / "out")]) == 0
    cells = sorted(
        path.parent.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("run.json")
    )
    assert cells == ["depth_0.7/seed0", "depth_0.7/seed1", "drop/seed0", "drop/seed1"]
    capsys.readouterr()
    assert sweep.main([str(file), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.count("  finished\n") == 4


def test_a_recipe_that_cannot_give_its_task(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = recipe() | {"task": "mine", "own_task": {"file": "task.py", "function": "make_task"}}
    file = write_yaml(folder / "own.yaml", content)
    assert plan.main([str(file), "--budget", "macs=0.6"]) == 2
    assert "its task 'mine' is your own; give its file: --task FILE.py" in capsys.readouterr().err
    assert inspect.main([str(folder / "far.yaml")]) == 2
    assert "far.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_zoo_model_with_weights_is_inspected_where_it_lies(folder: Path, tmp_path: Path) -> None:
    """Relative paths of weights start from the recipe's folder, and the run's recipe lies in another one."""
    arguments = recipe()["task"]["model"]["arguments"]
    content = recipe() | {
        "task": "zoo",
        "model": {"name": "timm/test_vit", "arguments": arguments, "weights": "weights.pth", "examples": 4},
    }
    file = write_yaml(folder / "zoo.yaml", content)
    assert apply.main([str(file), "--out", str(tmp_path / "zoo")]) == 0
    assert inspect.main([str(tmp_path / "zoo")]) == 0
