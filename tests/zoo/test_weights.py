"""Trained weights of the user's own: read from two formats, refused with every fault, and never by running anything."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.helpers.damages import Trap, forbid_pickle
from toolkit.base.errors import UserError
from toolkit.zoo.weights import load_weights


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def trained() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.rand_like(value.float()).to(value.dtype) for name, value in net().state_dict().items()}


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar"])
def test_both_formats_are_read(ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, path, model = trained(), tmp_path / f"weights{ending}", net()
    if ending == ".safetensors":
        forbid_pickle(monkeypatch)
        save_file(weights, path)
    else:
        torch.save(weights, path)
    load_weights(model, path)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_half_precision_is_converted(tmp_path: Path) -> None:
    weights = {name: value.half() if value.is_floating_point() else value for name, value in trained().items()}
    save_file(weights, tmp_path / "w.safetensors")
    model = net()
    load_weights(model, tmp_path / "w.safetensors")
    assert model.state_dict()["0.weight"].dtype == torch.float32
    assert torch.equal(model.state_dict()["0.weight"], weights["0.weight"].float())


def test_all_faults_are_named(tmp_path: Path) -> None:
    weights = trained()
    weights["0.weight"], weights["head.\x1b"] = torch.zeros(4, 5), weights.pop("0.bias")
    for path, write in ((tmp_path / "w.safetensors", save_file), (tmp_path / "w.pt", torch.save)):
        write(weights, path)
        model = net()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(UserError) as caught:
            load_weights(model, path)
        faults = str(caught.value).partition("not weights of this model: ")[2]
        assert faults == "0.weight is (4, 5), not (4, 3); 0.bias is missing; 'head.\\x1b' is not in the model"
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def archive_of_zeros(path: Path) -> None:
    """A small file that would take much memory when it is unpacked."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 2**25)


def large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(2**30)


def safetensors_of(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        weights = trained()
        change(weights)
        save_file(weights, path)

    return write


def torch_of(content: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(content, path)


CASES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("w.safetensors", lambda path: None, "cannot be read"),
    "no ending": ("weights", torch_of(trained()), "end in one of: .safetensors, .pt, .pth, .bin"),
    "of numpy": ("w.npz", torch_of(trained()), "end in one of"),
    "a folder": ("w.safetensors", Path.mkdir, "cannot be read"),
    "empty": ("w.safetensors", Path.touch, "cannot be read"),
    "empty archive": ("w.pt", Path.touch, "not a file of torch.save"),
    "a pickle renamed": ("w.safetensors", lambda path: path.write_bytes(pickle.dumps(Trap())), "cannot be read"),
    "a bare pickle": ("w.pt", lambda path: path.write_bytes(pickle.dumps(Trap())), "not a file of torch.save"),
    "code in an archive": ("w.pt", torch_of(Trap()), "it holds .*, and code in a file is never run; save model.state"),
    "code beside tensors": ("w.pt", torch_of({**trained(), "x": Trap()}), "not a state dict of plain tensors"),
    "a whole model": ("w.pt", torch_of(net()), "not a state dict of plain tensors"),
    "an optimizer": ("w.pt", torch_of({"state": {0: trained()}, "param_groups": []}), "not a state dict of this model"),
    "of another model": ("w.pt", torch_of({"model": {"far": torch.zeros(1)}}), "0.weight is missing"),
    "two of the model": ("w.pt", torch_of({"model": trained(), "ema": trained()}), "under model and ema; say with"),
    "a list": ("w.pt", torch_of([torch.zeros(1)]), "holds a list"),
    "sparse file": ("w.safetensors", large, "more than 8 times"),
    "sparse archive": ("w.pt", large, "more than 8 times"),
    "packed zeros": ("w.pt", archive_of_zeros, "more than 8 times"),
    "numbers of another kind": (
        "w.safetensors",
        safetensors_of(lambda weights: weights.update({"0.bias": torch.ones(4, dtype=torch.int64)})),
        "0.bias is torch.int64",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_weights_of_the_model(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, message = CASES[case]
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        load_weights(net(), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert not Path("unpickled").exists()
