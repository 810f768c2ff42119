"""Files appear whole or not at all, and their hashes are the usual ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from toolkit.base.files import bytes_sha256, content_sha256, file_sha256, replacing, write_atomically


def write_half(path: Path) -> None:
    with replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old\n")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "old\n")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert path.read_text() == "old\n"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_hashes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000  # more than one chunk
    (tmp_path / "x").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert file_sha256(tmp_path / "x") == bytes_sha256([content[:100], content[100:]]) == expected
    assert content_sha256({"b": 1, "a": [2]}) == hashlib.sha256(b'{"a": [2], "b": 1}').hexdigest()
