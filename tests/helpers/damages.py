"""Ways to damage or abuse the folder of a saved model: changes of the files, and the word that the error must have."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_net import DIM

MANIFEST, WEIGHTS = "model.json", "model.safetensors"
Damage = Callable[[Path], object]


class _Refusing(pickle.Unpickler):
    """Refuses to unpickle; a class, because packages that are imported late derive their own from it."""

    def __init__(self, *_: object, **__: object) -> None:
        raise AssertionError("a checkpoint must never be unpickled")


def forbid_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets everything that would unpickle something fail until the test ends."""
    monkeypatch.setattr(torch, "load", _Refusing)
    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, _Refusing)


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


def linked(name: str) -> Damage:
    """The file is a link to its own content, which lies elsewhere."""

    def apply(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return apply


def replaced(name: str, make: Callable[[Path], object]) -> Damage:
    def apply(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return apply


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
    "manifest a link": (linked(MANIFEST), "not a plain file"),
    "manifest a pipe": (replaced(MANIFEST, os.mkfifo), "not a plain file"),
    "manifest of empty lists": (
        overwrite(MANIFEST, lambda _: b'{"factory": {"zoo": [' + b"[]," * 10**6 + b"[]]}}"),
        "damaged or not a manifest",
    ),
    "key twice": (overwrite(MANIFEST, lambda content: content[:-2] + b',"version": 1}'), "'version' is given twice"),
    "not a number": (put(recipe_sha256=float("nan")), "NaN is not a finite number"),
    "number of many digits": (put(version=10**4000), "damaged or not a manifest"),
    "control characters": (put(**{"\x1b[2J": 1}), r"\\x1b\[2J"),
    "weights a link": (linked(WEIGHTS), "not a plain file"),
    "weights a folder": (replaced(WEIGHTS, Path.mkdir), "not a plain file"),
    "weights a pipe": (replaced(WEIGHTS, os.mkfifo), "not a plain file"),
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
    "weights declare many names": (
        overwrite(WEIGHTS, lambda content: (2**26).to_bytes(8, "little") + content[8:], fits=True),
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
