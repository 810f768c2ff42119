"""python -m toolkit.train in-process on the real task, for a few steps, and its faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from toolkit.base.errors import UserError
from toolkit.tasks.baseline import read_baseline
from toolkit.tasks.cards import make_task
from toolkit.tasks.training_record import TrainRecord
from toolkit.train import main

CONFIG = Path(__file__).parents[2] / "recipes" / "train" / "tad_watch.yaml"


def short(tmp_path: Path, **changes: str) -> Path:
    lines = CONFIG.read_text().replace("max_steps: 800", "max_steps: 2").replace("batch_size: 16", "batch_size: 2")
    for old, new in changes.items():
        assert old in lines
        lines = lines.replace(old, new)
    path = tmp_path / "config.yaml"
    path.write_text(lines)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    assert main([str(short(folder)), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_training_leaves_weights_and_how_they_came_to_be(trained: Path) -> None:
    record = TrainRecord.model_validate_json((trained / "training.json").read_bytes())
    assert record.config.max_steps == 2
    assert record.validation.split == "validation" and record.validation.num_examples == 20
    assert record.test is None
    assert [point.step for point in record.curve] == [2]
    weights = read_baseline(trained)
    assert weights is not None
    make_task("tad-watch").build_model().load_state_dict(weights)


def test_the_shipped_baseline_is_the_recorded_one() -> None:
    folder = Path(__file__).parents[2] / "toolkit" / "tasks" / "tad" / "watch" / "baseline"
    record = TrainRecord.model_validate_json((folder / "training.json").read_bytes())
    task = make_task("tad-watch")
    assert record.test is not None and record.test.value > 0.65
    torch.set_num_threads(1)
    assert task.evaluate(task.load_baseline(), "validation").value == pytest.approx(record.validation.value, abs=1e-3)


def test_damaged_baselines_are_refused(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trained, out)
    content = bytearray((out / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "weights.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="SHA-256 is not the one"):
        read_baseline(out)
    (out / "training.json").write_text("{")
    with pytest.raises(UserError, match="not the folder of a trained baseline"):
        read_baseline(out)
    assert read_baseline(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 0", "seed: '0'", "config.yaml:5: seed: "),
        ("weight_decay: 0.05", "weight_decy: 0.05", "config.yaml:9: weight_decy"),
        ("task: tad-watch", "task: tad-clock", "choose one of: tad-watch"),
    ],
)
def test_faults_of_a_config_name_their_line(
    old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = short(tmp_path, **{old: new})
    assert main([str(config), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(short(tmp_path)), "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
