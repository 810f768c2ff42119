"""Saved models: a round trip in this process and in a new one, and many ways to damage or abuse the folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.helpers.checkpoint_net import DIM, Net, compressed, example_inputs, shrink
from tests.helpers.damages import DAMAGES, MANIFEST, WEIGHTS, forbid_pickle, put
from toolkit.base.errors import CheckpointError
from toolkit.blocks.dropped import dropped_blocks
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model
from toolkit.measure.macs import count_macs
from toolkit.tasks.cards import make_task


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_pickle(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """On busy cores two threads wait for each other longer than these small models compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save(directory: Path, model: nn.Module, dense: nn.Module | None = None) -> None:
    save_model(directory, model, dense or Net(), factory={}, example_inputs=example_inputs(), recipe_sha256="ab" * 32)


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save(folder, compressed())
    return folder


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved_once, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(saved: Path) -> None:
    model, dense = compressed(), Net()
    loaded = load_model(saved, dense)
    with torch.no_grad():
        for old, new in zip(model(*example_inputs()).values(), loaded(*example_inputs()).values(), strict=True):
            torch.testing.assert_close(new, old, rtol=0, atol=1e-6)
    assert dropped_blocks(loaded) == ["blocks.1", "blocks.3"]
    assert (loaded.blocks[2].num_heads, loaded.blocks[2].shape, loaded.blocks[2].scale) == (2, (2, 2), 0.8)
    assert (loaded.blocks[0].fc1.out_features, loaded.blocks[0].fc2.in_features) == (8, 8)
    assert loaded.out.weight is loaded.embed.weight
    assert not loaded.training
    assert loaded.blocks[0].fc1.weight.requires_grad
    assert count_macs(loaded, example_inputs()) == count_macs(model, example_inputs())
    assert dropped_blocks(dense) == []
    assert dense.blocks[0].fc1.out_features == 16


def test_manifest_holds_the_difference_and_nothing_else(saved: Path) -> None:
    manifest = json.loads((saved / MANIFEST).read_text())
    assert set(manifest["removed_blocks"]) == {"blocks.1", "blocks.3"}
    assert manifest["attributes"] == {
        "blocks.0.fc1": {"out_features": 8},
        "blocks.0.fc2": {"in_features": 8},
        "blocks.2": {"num_heads": 2, "shape": [2, 2], "scale": 0.8},
        "blocks.2.q": {"out_features": 4},
        "blocks.2.k": {"out_features": 4},
        "blocks.2.v": {"out_features": 4},
        "blocks.2.proj": {"in_features": 4},
    }
    assert manifest["weights"]["bytes"] == (saved / WEIGHTS).stat().st_size
    assert sorted(path.name for path in saved.parent.rglob("*")) == ["model", MANIFEST, WEIGHTS]


def test_loads_in_a_new_process(saved: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from tests.helpers.checkpoint_net import Net, example_inputs; from toolkit import load_model\n"
        "from safetensors.torch import save_file\n"
        "model = load_model(sys.argv[1], Net())\n"
        "save_file({k: v.detach().contiguous() for k, v in model(*example_inputs()).items()}, sys.argv[2])"
    )
    paths = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    result = tmp_path / "outputs"
    subprocess.run([sys.executable, "-c", script, str(saved), str(result)], check=True, env=paths, timeout=60)
    with torch.no_grad():
        expected = compressed()(*example_inputs())
    for name, output in load_file(result).items():
        torch.testing.assert_close(output, expected[name], rtol=0, atol=1e-6)


def test_the_folder_of_a_run_is_understood(saved: Path) -> None:
    assert dropped_blocks(load_model(saved.parent, Net())) == ["blocks.1", "blocks.3"]


def test_saving_changes_neither_model_and_replaces_nothing(tmp_path: Path) -> None:
    model, dense = compressed().train(), Net()
    save(tmp_path / "model", model, dense)
    assert model.training
    assert dense.training
    assert dropped_blocks(dense) == []
    before = (tmp_path / "model" / MANIFEST).read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        save(tmp_path / "model", model, dense)
    assert (tmp_path / "model" / MANIFEST).read_bytes() == before


def wider(net: Net) -> None:
    net.blocks[0].fc1 = nn.Linear(DIM, 32)
    net.blocks[0].fc2 = nn.Linear(32, DIM)


def other_structure(net: Net) -> None:
    net.blocks[0].norm = nn.Identity()


def other_function(net: Net) -> None:
    net.stem = nn.Sequential(nn.Tanh())
    net.stem = nn.Conv1d(3, DIM, 3, padding=1, padding_mode="circular")


def not_finite(net: Net) -> None:
    nn.init.constant_(net.stem.bias, float("nan"))


def broken(net: Net) -> None:
    shrink(net.blocks[0].fc1, outputs=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wider, "does not fit into"),
        (other_structure, "missing"),
        (other_function, "does not compute"),
        (not_finite, "not finite"),
        (broken, "does not run"),
    ],
)
def test_what_cannot_be_loaded_again_is_not_saved(change: Callable[[Net], None], message: str, tmp_path: Path) -> None:
    model = compressed()
    change(model)
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "model", model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder(damage: str, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    break_it, message = DAMAGES[damage]
    break_it(saved)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(saved, Net())
    assert str(saved) in str(caught.value)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("factory", [{}, {"task": "no-such-task"}, {"task": 3}, {"task": "tad-watch", "path": "/x"}])
def test_without_a_model_only_known_factories_are_built(factory: dict[str, Any], saved: Path) -> None:
    put(factory=factory)(saved)
    with pytest.raises(CheckpointError, match="pass the unmodified model yourself"):
        load_model(saved)


def test_another_architecture_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another architecture"):
        load_model(saved, nn.Linear(3, 3))


def test_a_shipped_baseline_is_read_without_pickle() -> None:
    task = make_task("tad-watch")
    model = task.load_baseline()
    assert not model.training and any(bool(part.any()) for part in model.parameters())
