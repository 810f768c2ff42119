"""Reads data that do not ship from the folder that TOOLKIT_DATA names, without pickle, and checks their checksum."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError
from toolkit.base.files import bytes_sha256

Arrays = Mapping[str, NDArray[Any]]

ROOT_VARIABLE = "TOOLKIT_DATA"


def find_data(file: Path, what: str, how_to_get: str) -> Path:
    """Returns the path of a file below the folder that TOOLKIT_DATA names.

    what: the name of the data in messages, a plural.
    how_to_get: a clause that tells the user where the official source is and what to do.

    Raises:
        UserError: the variable is not set, or the folder does not have the file.
    """
    root = os.environ.get(ROOT_VARIABLE)
    if not root:
        raise UserError(f"{what} are missing: {ROOT_VARIABLE} is not set; {how_to_get}")
    path = Path(root) / file
    if not path.is_file():
        raise UserError(f"{what} are missing: {ROOT_VARIABLE}={root} has no {file}; {how_to_get}")
    return path


def read_arrays(path: Path, how_to_get: str) -> dict[str, NDArray[Any]]:
    """Returns the arrays of an npz file by name; nothing is unpickled.

    Raises:
        UserError: the file cannot be read as plain arrays.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as an npz file of arrays ({error}); {how_to_get}") from error


def checksum(arrays: Arrays) -> str:
    """Returns the SHA-256 over names, types, shapes and values in order of name, however the arrays are compressed."""
    return bytes_sha256(
        part
        for name in sorted(arrays)
        for part in (
            f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode(),
            arrays[name].tobytes(),
        )
    )


def check_arrays(path: Path, arrays: Arrays, sha256: str, how_to_get: str) -> None:
    """Raises UserError where the arrays that were read from `path` do not have the expected checksum."""
    actual = checksum(arrays)
    if actual != sha256:
        raise UserError(f"{path}: the SHA-256 of its arrays is {actual}, expected {sha256}; {how_to_get}")
