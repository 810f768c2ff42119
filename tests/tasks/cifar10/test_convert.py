"""The converter of the published CIFAR-10 files, on archives in their layout."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.made_up_cifar import made_up_arrays, random_weights
from toolkit.base.files import file_sha256
from toolkit.tasks.cifar10 import convert
from toolkit.tasks.cifar10.convert import TEST_FILE, TRAINING_FILES, main, read_archive
from toolkit.tasks.cifar10.data import as_arrays
from toolkit.tasks.local_data import checksum, read_arrays


def write_archive(path: Path, without: str = "") -> None:
    arrays = made_up_arrays()
    parts = [(name, slice(40 * place, 40 * place + 40), "train") for place, name in enumerate(TRAINING_FILES)]
    with tarfile.open(path, "w:gz") as archive:
        for name, rows, part in [*parts, (TEST_FILE, slice(None), "test")]:
            planes = arrays[f"x_{part}"][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
            labels = arrays[f"y_{part}"][rows, None].astype(np.uint8)
            content = np.concatenate([labels, planes], axis=1).tobytes()
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            if name != without:
                archive.addfile(entry, io.BytesIO(content))


def test_images_come_out_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, out = tmp_path / "cifar-10-binary.tar.gz", tmp_path / "cifar10"
    write_archive(archive)
    arrays = made_up_arrays()
    assert {name: value.tolist() for name, value in read_archive(archive).items()} == {
        name: value.tolist() for name, value in arrays.items()
    }
    assert main([str(archive), "--out", str(out)]) == 2 and not any(out.iterdir()), "not the published ones"
    monkeypatch.setattr(convert, "IMAGES_SHA256", checksum(arrays))
    assert main([str(archive), "--out", str(out)]) == 0
    assert checksum(read_arrays(out / "cifar10.npz", "")) == checksum(arrays)


def test_weights_lose_the_prefix_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, weights = tmp_path / "resnet20-12fca82f.th", random_weights(20)
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, file)
    assert main([str(file), "--out", str(tmp_path)]) == 2
    monkeypatch.setitem(convert.WEIGHTS_SOURCES, 20, (file.name, file_sha256(file)))
    assert main([str(file), "--out", str(tmp_path)]) == 2, "other tensors than the published ones"
    monkeypatch.setitem(convert.WEIGHTS_SHA256, 20, checksum(as_arrays(weights)))
    assert main([str(file), "--out", str(tmp_path)]) == 0
    found = load_file(tmp_path / "resnet20.safetensors")
    assert found.keys() == weights.keys() and all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("other.zip", "not a published file; give cifar-10-binary.tar.gz or one of: resnet20-12fca82f.th"),
        ("no.tar.gz", "cannot be read as an archive"),
        ("half.tar.gz", f"has no {TEST_FILE}; download https://www.cs.toronto.edu"),
        ("resnet44-014dd654.th", "its SHA-256 is .*, expected 014dd6541728"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, fault: str) -> None:
    (tmp_path / name).write_bytes(b"something else")
    if name.startswith("half"):
        write_archive(tmp_path / name, without=TEST_FILE)
    assert main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert re.search(fault, message)
