"""Collects pictures that are files: in folders of classes, or in the list of a csv file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.base.words import did_you_mean
from toolkit.tasks.images.collected import SPLIT_NAMES, Collected, FilesError, few, refuse, split_of
from toolkit.tasks.images.pictures import Pictures

COLUMNS = ("path", "label", "split")

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif"})

Rows = list[tuple[Path, str]]  # a picture and the name of its class


def from_folder(folder: Path, classes: tuple[str, ...] | None) -> Collected:
    """Returns the pictures below a folder, as torchvision's ImageFolder reads each of its splits.

    Raises:
        FilesError: folders are missing, empty, or not named after splits and classes.
    """
    if not folder.is_dir():
        raise refuse("folder", f"{folder}: {'is a file' if folder.exists() else 'there is no such folder'}")
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir())
    named: dict[str, list[str]] = {
        split: [name for name in names if name in inside] for split, names in SPLIT_NAMES.items()
    }
    twice = [names for names in named.values() if len(names) > 1]
    if twice:
        raise refuse("folder", f"{folder}: {' and '.join(twice[0])} are folders of the same split; leave one")
    if not named["train"]:
        raise refuse("folder", f"{folder}: has no folder train{_instead(folder, inside)}")
    lacking = [name for split, names in SPLIT_NAMES.items() if not named[split] for name in names]
    hints = {name: did_you_mean(name, lacking) for name in inside if split_of(name) is None}
    strange = [name for name, hint in hints.items() if hint]
    if strange:
        raise refuse(
            "folder", f"{folder / strange[0]}: is the folder of no split; {hints[strange[0]]}rename or move it"
        )
    rows: dict[str, Rows] = {}
    faults: list[str] = []
    for split, names in named.items():
        if names:
            rows[split], found = _split_folder(folder / names[0])
            faults += found
    if faults:
        raise refuse("folder", *faults)
    known = classes or tuple(sorted({label for _, label in rows["train"]}))
    return _labelled("folder", rows, known, str(folder))


def from_csv(file: Path, classes: tuple[str, ...] | None) -> Collected:
    """Returns the pictures in a list with the columns path, label and split.

    Raises:
        FilesError: the list cannot be read, lacks a column, or has rows without a path, a label or a known split.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse("csv", f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        there = ", ".join(reader.fieldnames or ()) or "none"
        hint = "; separate columns by commas" if len(reader.fieldnames or ()) == 1 and missing == list(COLUMNS) else ""
        raise refuse("csv", f"{file}: has no column {' and '.join(missing)}; its columns are: {there}{hint}")
    rows: dict[str, Rows] = {}
    faults: list[str] = []
    for row in reader:
        path, label, split = ((row[name] or "").strip() for name in COLUMNS)
        empty = [name for name, value in zip(COLUMNS, (path, label, split), strict=True) if not value]
        if empty:
            faults.append(f"line {reader.line_num} has no {' and '.join(empty)}")
        elif split_of(split) is None:
            faults.append(f"line {reader.line_num} has the split {split!r}; {did_you_mean(split, _ALL_NAMES)}")
        else:
            rows.setdefault(split_of(split) or "", []).append((file.parent / path, label))
    if faults:
        raise refuse(
            "csv", f"{file}: {few([fault.strip('; ') for fault in faults])}; splits are: {', '.join(_ALL_NAMES)}"
        )
    if "train" not in rows:
        raise refuse("csv", f"{file}: has no row of the split train")
    labels = {label for split in rows.values() for _, label in split}
    numbered = classes is None and all(label.isdecimal() for label in labels)
    if numbered:
        return _numbered(file, rows)
    return _labelled("csv", rows, classes or tuple(sorted({label for _, label in rows["train"]})), str(file))


def missing_files(splits: Mapping[str, Pictures]) -> list[Path]:
    """Returns the files that are not there or are empty."""
    paths = [path for pictures in splits.values() for path in pictures.paths]
    return [path for path in paths if not path.is_file() or not path.stat().st_size]


def unreadable(splits: Mapping[str, Pictures], most: int, *, whole: bool) -> list[str]:
    """Returns what is wrong with files that are not pictures, in words.

    most: the number of files of each split that are tried at least, if it has as many; they are evenly spread.
    whole: whether the files are read whole; else they are only opened, which is faster and finds other files.
    """
    faults = []
    for pictures in splits.values():
        for place in range(0, len(pictures.paths), max(1, len(pictures.paths) // most)):
            try:
                if not whole:
                    with Image.open(pictures.paths[place]):
                        continue
                pictures.open(place, "RGB")
            except (Exception, Image.DecompressionBombError) as error:  # PIL raises anything on a damaged file
                faults.append(str(error) if whole else f"{pictures.paths[place]}: cannot be read as a picture")
    return faults


_ALL_NAMES = tuple(name for names in SPLIT_NAMES.values() for name in names)


def _instead(folder: Path, inside: list[str]) -> str:
    """Returns what the folder holds instead of training pictures, in words."""
    if not inside:
        return "; it holds no folder"
    hint = next((hint for name in inside if (hint := did_you_mean(name, ("train",)))), "")
    if not hint and all(split_of(name) is None for name in inside):
        some = next((path for path in (folder / inside[0]).iterdir() if path.suffix.lower() in ENDINGS), None)
        if some is not None:
            hint = (
                "these look like classes, so that no split is known; put them into train, val and test, or give a csv"
            )
    return f"; it holds: {few(inside)}{'; ' if hint else ''}{hint.strip()}"


def _split_folder(folder: Path) -> tuple[Rows, list[str]]:
    """Returns the pictures of one split in the order of their names, and what is wrong with its folders."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    if not inside:
        loose = any(path.suffix.lower() in ENDINGS for path in folder.iterdir())
        why = "its pictures lie in no folder of a class, so that they have no labels" if loose else "it holds no folder"
        return [], [f"{folder}: {why}; there must be one folder of pictures for each class"]
    rows: Rows = []
    faults = []
    for one in inside:
        files = sorted(
            Path(place) / name
            for place, _, names in os.walk(one)
            for name in names
            if Path(name).suffix.lower() in ENDINGS
        )
        if not files:
            faults.append(f"{one}: holds no picture (files that end in {', '.join(sorted(ENDINGS))})")
        rows += [(path, one.name) for path in files]
    return rows, faults


def _labelled(key: str, rows: Mapping[str, Rows], classes: tuple[str, ...], where: str) -> Collected:
    numbers = {name: number for number, name in enumerate(classes)}
    faults = []
    for split, pictures in rows.items():
        unknown = sorted({label for _, label in pictures} - numbers.keys())
        if unknown:
            hint = did_you_mean(unknown[0], classes)
            faults.append(f"{where}: {few(unknown)} of {split} is no class of {_of_what(classes)}; {hint}".rstrip("; "))
    if faults:
        raise refuse(key, *faults)
    splits = {
        split: Pictures(
            np.array([numbers[label] for _, label in pictures], np.int64), tuple(path for path, _ in pictures)
        )
        for split, pictures in rows.items()
    }
    return Collected(splits, classes)


def _of_what(classes: tuple[str, ...]) -> str:
    return f"the {len(classes)} known ones ({few(classes)})"


def _numbered(file: Path, rows: Mapping[str, Rows]) -> Collected:
    numbers = sorted({int(label) for split in rows.values() for _, label in split})
    if numbers != list(range(len(numbers))):
        gap = next(number for number in range(len(numbers)) if numbers[number] != number)
        raise FilesError(
            [
                (
                    ("data", "csv"),
                    f"{file}: labels go from {numbers[0]} to {numbers[-1]} without {gap}; number the classes "
                    "from 0 without a gap, or name all of them under classes",
                )
            ]
        )
    return _labelled("csv", rows, tuple(map(str, numbers)), str(file))
