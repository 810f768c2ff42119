"""python -m toolkit.tasks.tad.hapt.convert ARCHIVE.zip --out FILE.npz: converts the HAPT archive for the task tad-hapt.

ARCHIVE.zip is the official archive of UCI dataset 341 (DOI 10.24432/C54G7M). Exit codes: 0 done; 1 an unexpected
error; 2 an error that the user can fix.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError
from toolkit.base.files import replacing
from toolkit.tasks.hapt import CLASSES, SHA256, recording_key
from toolkit.tasks.local_data import Arrays, checksum

SENSOR_FILE = re.compile(r"(acc|gyro)_exp(\d+)_user(\d+)\.txt")

LABELS_FILE = "labels.txt"

FAULTS_SHOWN = 20

Tables = dict[str, NDArray[np.float64]]


def main(argv: Sequence[str] | None = None) -> int:
    """Converts the HAPT archive for the task tad-hapt, and returns the exit code.

    argv: the arguments; None stands for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m toolkit.tasks.tad.hapt.convert", description=__doc__)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE.zip", help="official archive of UCI dataset 341")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.npz", required=True, help="new file, hapt/hapt_raw_f32.npz below TOOLKIT_DATA"
    )
    args = parser.parse_args(argv)
    try:
        _refuse_existing(args.out)
        arrays = read_archive(args.archive)
        _save(args.out, arrays)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{args.out}: {len(arrays) - 1} recordings, {len(arrays['labels'])} labelled segments")
    actual = checksum(arrays)
    if actual == SHA256:
        print(f"the arrays are the published ones (SHA-256 {actual})")
    else:
        print(f"the arrays are NOT the published ones: SHA-256 {actual}, expected {SHA256}; tad-hapt will refuse them")
    return 0


def read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Returns the arrays of the archive: `expEE_userUU` float32 [samples, 6] of every recording, `labels` int32 [N, 5].

    Raises:
        UserError: the archive has faults; the message names them, one per line.
    """
    faults: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            tables = _tables(archive, faults)
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as a zip archive: {error}") from error
    arrays: dict[str, NDArray[Any]] = dict(_paired(tables, faults))
    if LABELS_FILE in tables:
        faults += _label_faults(tables[LABELS_FILE], arrays)
    if faults:
        more = [f"{path}: and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise UserError("\n".join([f"{path}: {fault}" for fault in faults[:FAULTS_SHOWN]] + more))
    arrays["labels"] = tables[LABELS_FILE].astype(np.int32)
    return arrays


def _tables(archive: zipfile.ZipFile, faults: list[str]) -> Tables:
    """Returns the tables of RawData by file name; RawData may lie at any depth."""
    files = [PurePosixPath(name) for name in archive.namelist() if not name.startswith("__MACOSX/")]
    folders = [file.parent for file in files if file.parts[-2:] == ("RawData", LABELS_FILE)]
    if len(folders) != 1:
        what = f"{len(folders)} folders have" if folders else "no folder has"
        faults.append(f"one RawData/{LABELS_FILE} was expected, but {what} it; is this the archive of UCI dataset 341?")
        return {}
    tables = {}
    for file in files:
        if file.parent == folders[0] and (file.name == LABELS_FILE or SENSOR_FILE.fullmatch(file.name)):
            try:
                tables[file.name] = _table(archive.read(str(file)), 5 if file.name == LABELS_FILE else 3)
            except ValueError as error:
                faults.append(f"{file}: {error}")
    return tables


def _table(content: bytes, columns: int) -> NDArray[np.float64]:
    """Returns a table of whitespace-separated numbers, one row per line.

    Raises:
        ValueError: the content is empty, has another number of columns, or holds something else than finite numbers.
    """
    if not content.strip():
        raise ValueError("is empty")
    table = np.loadtxt(io.BytesIO(content), dtype=np.float64, comments=None, ndmin=2)
    if table.shape[1] != columns:
        raise ValueError(f"has {table.shape[1]} columns, expected {columns}")
    if not (np.abs(table) < np.finfo(np.float32).max).all():
        raise ValueError("holds numbers that are not finite")
    return table


def _paired(tables: Mapping[str, NDArray[np.float64]], faults: list[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields key and signal of each recording: acceleration and angular velocity side by side."""
    sensors: dict[tuple[int, int], Tables] = {}
    for name, table in tables.items():
        if match := SENSOR_FILE.fullmatch(name):
            sensors.setdefault((int(match[2]), int(match[3])), {})[match[1]] = table
    for numbers, pair in sorted(sensors.items()):
        key = recording_key(*numbers)
        if len(pair) < 2:
            faults.append(f"{key} has only {next(iter(pair))} data; acc and gyro are needed")
        elif len(pair["acc"]) != len(pair["gyro"]):
            faults.append(f"{key}: acc has {len(pair['acc'])} samples, gyro has {len(pair['gyro'])}")
        else:
            yield key, np.concatenate([pair["acc"], pair["gyro"]], axis=1).astype(np.float32)


def _label_faults(table: NDArray[np.float64], recordings: Arrays) -> Iterator[str]:
    """Yields a message for each row with an unknown recording or class, or with samples outside of its recording."""
    for line, row in enumerate(table, start=1):
        place = f"{LABELS_FILE}:{line}"
        if (row != np.floor(row)).any():
            yield f"{place}: {row.tolist()} are not whole numbers"
            continue
        experiment, user, label, start, end = (int(value) for value in row)
        key = recording_key(experiment, user)
        if not 1 <= label <= len(CLASSES):
            yield f"{place}: class {label} is not in 1 to {len(CLASSES)}"
        if key not in recordings:
            yield f"{place}: there is no complete recording {key}"
        elif not 1 <= start <= end <= len(recordings[key]):
            yield f"{place}: samples {start} to {end} are not in 1 to {len(recordings[key])} of {key}"


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise UserError(f"--out {path}: exists already; choose another file")


def _save(path: Path, arrays: Arrays) -> None:
    """Writes the npz file; a crash leaves either no file or all of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            with open(part, "wb") as file:
                np.savez_compressed(file, **dict(arrays))  # type: ignore[arg-type]
            _refuse_existing(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    sys.exit(main())
