"""Saved models: a round trip in this process and in a new one, and many ways to damage or abuse the folder."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from checkpoint_net import DIM, Net, compressed, example_inputs, shrink
from safetensors.torch import load_file, save_file
from torch import nn

from toolkit.blocks import dropped_blocks
from toolkit.checkpoint import load_model, save_model
from toolkit.errors import CheckpointError
from toolkit.measure.macs import count_macs

MANIFEST, WEIGHTS = "model.json", "model.safetensors"


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("a checkpoint must never be unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


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
        "import sys; from checkpoint_net import Net, example_inputs; from toolkit.checkpoint import load_model\n"
        "from safetensors.torch import save_file\n"
        "model = load_model(sys.argv[1], Net())\n"
        "save_file({k: v.detach().contiguous() for k, v in model(*example_inputs()).items()}, sys.argv[2])"
    )
    paths = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}"}
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


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of the manifest, as an attacker or an accident would make it."""

    def apply(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        change(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return apply


def reweigh(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """A change of the weights with a manifest that fits the new file: its hash alone proves nothing."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        rehash(folder)

    return apply


def rehash(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    new = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(lambda manifest: manifest["weights"].update(new))(folder)


def overwrite(name: str, change: Callable[[bytes], bytes], fits: bool = False) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        if fits:
            rehash(folder)

    return apply


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 64]) + content[-8:]


def resize(shape: list[int]) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest["tensors"]["blocks.0.fc1.weight"].update(shape=shape))


def patch(module: str, **values: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest["attributes"].setdefault(module, {}).update(values))


def remove_block(name: str, **structure: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest["removed_blocks"].update({name: {"kind": "tensor", **structure}}))


def put(**values: Any) -> Callable[[Path], None]:
    return edit(lambda manifest: manifest.update(values))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "cannot be read"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "cannot be read"),
    "manifest truncated": (overwrite(MANIFEST, lambda content: content[:500]), "damaged or not a manifest"),
    "manifest empty": (overwrite(MANIFEST, lambda _: b""), "damaged or not a manifest"),
    "manifest binary": (overwrite(MANIFEST, lambda _: b"\x80\x00\xff" * 99), "damaged or not a manifest"),
    "manifest a list": (overwrite(MANIFEST, lambda _: b"[]"), "damaged or not a manifest"),
    "manifest nested": (overwrite(MANIFEST, lambda _: b'{"factory":' + b"[" * 10**5), "damaged or not a manifest"),
    "manifest huge": (overwrite(MANIFEST, lambda _: b" " * 2**25), "too large"),
    "weights truncated": (overwrite(WEIGHTS, lambda content: content[:-100]), "truncated"),
    "weights flipped": (overwrite(WEIGHTS, flip), "SHA-256"),
    "weights flipped, hash fits": (overwrite(WEIGHTS, flip, fits=True), "does not compute|not finite"),
    "weights truncated, hash fits": (overwrite(WEIGHTS, lambda content: content[:-100], fits=True), "not a safetens"),
    "weights a pickle": (overwrite(WEIGHTS, lambda _: pickle.dumps(Trap())), "truncated"),
    "weights a pickle, hash fits": (overwrite(WEIGHTS, lambda _: pickle.dumps(Trap()), fits=True), "not a safetensors"),
    "weights declare much": (
        overwrite(WEIGHTS, lambda content: (2**40).to_bytes(8, "little") + content[8:], fits=True),
        "not a safetensors",
    ),
    "weight missing": (reweigh(lambda tensors: tensors.pop("stem.bias")), "stem.bias is None in the file"),
    "weight extra": (reweigh(lambda tensors: tensors.update(x=torch.ones(1))), "None in the manifest"),
    "weight of other shape": (reweigh(lambda tensors: tensors.update({"stem.bias": torch.ones(3)})), "stem.bias"),
    "weight of other type": (
        reweigh(lambda tensors: tensors.update({"stem.bias": torch.ones(DIM).double()})),
        "float64",
    ),
    "weights zeroed": (reweigh(lambda tensors: tensors["stem.weight"].zero_()), "does not compute"),
    "version": (put(version=2), "version"),
    "unknown key": (put(code="import os"), "code"),
    "file elsewhere": (edit(lambda manifest: manifest["weights"].update(file="../model.safetensors")), "weights.file"),
    "absolute file": (edit(lambda manifest: manifest["weights"].update(file="/etc/passwd")), "weights.file"),
    "shape huge": (resize([2**39, 2**39]), "in the manifest"),
    "shape beyond all": (resize([2**70, 1]), "damaged or not a manifest"),
    "shape negative": (resize([-1, DIM]), "damaged or not a manifest"),
    "attribute of no module": (patch("blocks.9", num_heads=1), "no submodule 'blocks.9'"),
    "attribute unknown": (patch("blocks.0", heads=1), "no such attribute"),
    "attribute inherited": (patch("blocks.0", forward=1), "no such attribute"),
    "attribute of a kind": (patch("blocks.0", training=1), "a bool may not become 1"),
    "attribute as text": (patch("blocks.0", num_heads="4"), "damaged or not a manifest"),
    "attribute as float": (patch("blocks.0", num_heads=4.0), "a int may not become 4.0"),
    "attribute grown": (patch("blocks.0", num_heads=10**9), "not between"),
    "attribute zero": (patch("blocks.0", num_heads=0), "not between"),
    "attribute table": (patch("blocks.0", _modules=3), "a dict may not become 3"),
    "attribute breaks it": (patch("blocks.0", shape=[1, 1]), "does not run"),
    "attribute changes it": (patch("blocks.0", scale=9.0), "does not compute"),
    "block removed twice": (remove_block("blocks.1.norm"), "no submodule 'blocks.1.norm'"),
    "block not there": (remove_block("blocks.7"), "no submodule 'blocks.7'"),
    "the model removed": (remove_block(""), "no submodule ''"),
    "block too many": (remove_block("blocks.2"), "unknown"),
    "layer removed": (remove_block("stem"), "unknown"),
    "structure huge": (remove_block("blocks.1", kind="tuple", length=10**9), "damaged or not a manifest"),
    "structure other": (remove_block("blocks.1", kind="tuple", length=2), "does not run"),
    "fingerprint input huge": (
        edit(lambda manifest: manifest["fingerprint"]["inputs"][0].update(shape=[1, 3, 10**9])),
        "too many",
    ),
    "fingerprint input unfit": (
        edit(lambda manifest: manifest["fingerprint"]["inputs"][0].update(shape=[1, 2, 7])),
        "does not run",
    ),
    "fingerprint empty": (edit(lambda manifest: manifest["fingerprint"].update(outputs=[])), "other shapes"),
    "fingerprint changed": (
        edit(lambda manifest: manifest["fingerprint"]["outputs"][0].update(mean=1.0)),
        "does not compute",
    ),
    "fingerprint shortened": (
        edit(lambda manifest: manifest["fingerprint"]["outputs"][0].update(values=[])),
        "other shapes",
    ),
    "fingerprint of other size": (
        edit(lambda manifest: manifest["fingerprint"]["outputs"][0].update(shape=[1])),
        "other shapes",
    ),
}


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
