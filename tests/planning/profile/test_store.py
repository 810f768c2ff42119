"""Kept numbers: written as they come, refused when damaged or of other conditions, made again on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.base.errors import UserError
from toolkit.planning.profile.store import open_store

ABOUT = {"device": "a machine", "torch": "2.15"}


def test_known_numbers_are_not_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "store.json"
    store = open_store(path, ABOUT)
    assert store.get("a", lambda: [1.0, 2.0]) == [1.0, 2.0]
    with pytest.raises(ZeroDivisionError):
        store.get("b", lambda: [1 / 0])
    again = open_store(path, ABOUT)
    assert again.get("a", lambda: [0.0]) == [1.0, 2.0]
    assert "b" not in again.entries


def test_a_file_cut_in_half(tmp_path: Path) -> None:
    path = tmp_path / "store.json"
    open_store(path, ABOUT).get("a", lambda: [1.0])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"store.json: damaged or cut off .* give --rebuild, to measure"):
        open_store(path, ABOUT)
    assert path.read_bytes() == whole[: len(whole) // 2], "nothing is lost by being told so"
    assert open_store(path, ABOUT, rebuild=True).get("a", lambda: [3.0]) == [3.0]
    assert open_store(path, ABOUT).entries == {"a": [3.0]}


@pytest.mark.parametrize(("name", "value"), [("device", "another machine"), ("torch", "2.16")])
def test_numbers_of_another_device_or_version(tmp_path: Path, name: str, value: str) -> None:
    path = tmp_path / "store.json"
    open_store(path, ABOUT).get("a", lambda: [1.0])
    with pytest.raises(UserError, match=f"{name}: {ABOUT[name]} in the file, {value} now"):
        open_store(path, ABOUT | {name: value})
