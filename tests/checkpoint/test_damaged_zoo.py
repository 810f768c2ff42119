"""Damaged and hostile folders: each gives an error, runs nothing, fetches nothing, and takes little memory."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.checkpoint_net import Net, compressed, example_inputs
from tests.helpers.damages import DAMAGES, forbid_pickle
from tests.helpers.zoo_damages import ZOO_DAMAGES, save_zoo_model
from toolkit.base.errors import CheckpointError
from toolkit.checkpoint.load import load_model
from toolkit.checkpoint.save import save_model

MOST_MEMORY_MB = 300
ROOT = Path(__file__).parents[2]
LOADER = """
import json, sys
import timm, torchvision, transformers
from tests.helpers.checkpoint_net import Net
from toolkit.checkpoint.load import load_model
from toolkit.base.errors import CheckpointError

def memory_mb(kind):
    status = open("/proc/self/status").read()
    return int(status.split(kind + ":")[1].split()[0]) / 1024

start_mb, used_mb = memory_mb("VmRSS"), {}
for name, own in json.loads(sys.argv[1]):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts from now
    try:
        load_model(name, Net() if own else None)
    except CheckpointError:
        used_mb[name] = memory_mb("VmHWM") - start_mb
print(json.dumps(used_mb))
"""


@pytest.fixture(scope="module")
def saved_zoo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "model"
    save_zoo_model(folder)
    return folder


@pytest.fixture(autouse=True)
def _nothing_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise AssertionError("loading must never need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    forbid_pickle(monkeypatch)


@pytest.mark.parametrize("damage", ZOO_DAMAGES)
def test_damaged_zoo_folder(
    damage: str, saved_zoo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(saved_zoo_model, folder)
    break_it, message = ZOO_DAMAGES[damage]
    break_it(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500
    assert not Path("unpickled").exists()


def test_there_are_enough_of_them() -> None:
    assert len(ZOO_DAMAGES) + len(DAMAGES) >= 30 + 30


@pytest.mark.slow
def test_no_damaged_folder_takes_much_memory(saved_zoo_model: Path, tmp_path: Path) -> None:
    """The peak of each, in one new process for all: above what importing the loader and the zoos' libraries takes."""
    save_model(tmp_path / "own", compressed(), Net(), factory={}, example_inputs=example_inputs(), recipe_sha256=None)
    folders: list[tuple[str, bool]] = []
    names: dict[str, str] = {}
    for number, (own, damages, original) in enumerate(
        ((True, DAMAGES, tmp_path / "own"), (False, ZOO_DAMAGES, saved_zoo_model))
    ):
        for index, (name, (break_it, _)) in enumerate(damages.items()):
            folder = tmp_path / f"{number}-{index}" / "model"
            shutil.copytree(original, folder)
            break_it(folder)
            folders.append((str(folder), own))
            names[str(folder)] = name
    done = subprocess.run(
        [sys.executable, "-c", LOADER, json.dumps(folders)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    used_mb: dict[str, float] = json.loads(done.stdout)
    assert set(used_mb) == {name for name, _ in folders}, "some damaged folder was loaded"
    worst = max(used_mb, key=used_mb.__getitem__)
    print(f"{len(folders)} folders, at most {used_mb[worst]:.0f} MB beside what importing takes ({names[worst]})")
    assert 0 < used_mb[worst] < MOST_MEMORY_MB, names[worst]
    assert not (tmp_path / "unpickled").exists()
