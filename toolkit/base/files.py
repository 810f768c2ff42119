"""Writes files whole or not at all, and hashes files, bytes and plain JSON."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 2**20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to, and replaces `path` by the file written there when the `with` ends.

    A crash leaves either the old file or the new one. After an error in the `with` only the old file is left.
    """
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with open(part, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by `text`; a crash leaves either the old file or the new one."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def move_file(source: Path, target: Path) -> None:
    """Moves a file within one file system in a single step, and replaces a file that `target` already names."""
    os.replace(source, target)


def link_folder(source: Path, target: Path) -> None:
    """Makes `target` a folder of the same files as `source`, whole or not at all; a folder that was there is replaced.

    The files are hard links, which take no room; where the file system has none, they are copies. Folders within
    `source` are left out.
    """
    part = target.with_name(f".{target.name}.part")
    for old in (part, target):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    for file in (path for path in source.iterdir() if path.is_file()):
        try:
            os.link(file, part / file.name)
        except OSError:
            shutil.copy2(file, part / file.name)
    os.replace(part, target)


def bytes_sha256(parts: Iterable[bytes]) -> str:
    """Returns the SHA-256 of all parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, which is read in pieces of 1 MiB."""
    with open(path, "rb") as file:
        return bytes_sha256(iter(lambda: file.read(_CHUNK_BYTES), b""))


def content_sha256(content: Any) -> str:
    """Returns the SHA-256 of plain JSON; the order of keys and the layout in a file do not change it."""
    return bytes_sha256([json.dumps(content, sort_keys=True).encode()])


def moved_path(path: str, old: Path, new: Path) -> str:
    """Returns a path as it must be written in a file of the folder `new` to mean what it means in the folder `old`.

    A relative path starts from the folder of the file that holds it; an absolute one stays as it is.
    """
    if Path(path).is_absolute():
        return path
    return Path(os.path.relpath((old / path).resolve(), new.resolve())).as_posix()
