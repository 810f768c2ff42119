"""Collects pictures that are arrays: in an npz file, or in a data set of torchvision that lies on the disk."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError
from toolkit.tasks.images.collected import SPLIT_NAMES, Collected, few, refuse
from toolkit.tasks.images.pictures import Pictures
from toolkit.tasks.images.settings import TorchvisionData
from toolkit.tasks.local_data import read_arrays
from toolkit.zoo.build import library_of

FORMS: Final = (("x_{}", "y_{}"), ("{}_images", "{}_labels"))

OWN_FILES = "write your pictures with numpy.savez_compressed(file, x_train=..., y_train=..., x_test=..., y_test=...)"

BY_SPLIT: Final = ("SVHN", "STL10")  # they take split="train"; the others take train=True


def from_npz(file: Path, classes: tuple[str, ...] | None) -> Collected:
    """Returns the pictures in an npz file.

    Raises:
        FilesError: the file cannot be read, has no training pictures, or arrays of another form.
    """
    try:
        arrays = read_arrays(file, OWN_FILES)
    except UserError as error:
        raise refuse("npz", str(error)) from error
    splits: dict[str, Pictures] = {}
    faults: list[str] = []
    for split, names in SPLIT_NAMES.items():
        pairs = [(x.format(name), y.format(name)) for name in names for x, y in FORMS]
        pair = next(((x, y) for x, y in pairs if x in arrays or y in arrays), None)
        if pair is None:
            continue
        absent = [name for name in pair if name not in arrays]
        fault = f"{absent[0]} is missing" if absent else _fault_of(pair, arrays)
        if fault:
            faults.append(f"{file}: {fault}")
        else:
            splits[split] = Pictures(arrays[pair[1]].reshape(-1).astype(np.int64), pixels=_plain(arrays[pair[0]]))
    if not faults and "train" not in splits:
        faults.append(f"{file}: has no x_train and y_train; its arrays are: {', '.join(arrays) or 'none'}; {OWN_FILES}")
    if faults:
        raise refuse("npz", *faults)
    return _of_classes("npz", str(file), splits, classes)


def from_torchvision(name: TorchvisionData, root: Path, classes: tuple[str, ...] | None) -> Collected:
    """Returns the pictures of a data set of torchvision, whose files lie below `root`; nothing is downloaded.

    Raises:
        FilesError: the files are missing or damaged, or torchvision lacks what reads them.
    """
    if not root.is_dir():
        raise refuse("root", f"{root}: there is no such folder")
    try:
        library_of("torchvision")
    except UserError as error:
        raise refuse("torchvision", str(error)) from error
    make = getattr(importlib.import_module("torchvision.datasets"), name)
    splits: dict[str, Pictures] = {}
    known = classes
    for split in ("train", "test"):
        which = {"split": split} if name in BY_SPLIT else {"train": split == "train"}
        try:
            data = make(str(root), download=False, **which)
        except Exception as error:  # torchvision raises anything on missing and damaged files
            told = " ".join(str(error).replace(" You can use download=True to download it", "").split())
            raise refuse(
                "torchvision", f"{root}: {name} cannot be read from there: {told}; download it there before"
            ) from error
        labels = np.asarray(getattr(data, "targets", None) if hasattr(data, "targets") else data.labels)
        splits[split] = Pictures(labels.reshape(-1).astype(np.int64), pixels=_plain(np.asarray(data.data)))
        named = getattr(data, "classes", None)
        known = known or (tuple(map(str, named)) if named else None)
    return _of_classes("torchvision", f"{name} in {root}", splits, known)


def _plain(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns pictures as uint8 [N, height, width] or [N, height, width, 3]; other axes are those of torchvision."""
    if pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    return np.ascontiguousarray(pixels)


def _fault_of(pair: tuple[str, str], arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """Returns what is wrong with an array of pictures and its labels, in words."""
    pixels, labels = arrays[pair[0]], arrays[pair[1]]
    shape = list(pixels.shape)
    form = "pictures are uint8 [N, height, width] or [N, height, width, 3]"
    if pixels.ndim not in (3, 4):
        return f"{pair[0]} has the shape {shape}; {form}"
    if pixels.ndim == 4 and pixels.shape[3] not in (1, 3):
        first = pixels.shape[1] in (1, 3)
        return f"{pair[0]} has the shape {shape}; {form}{': save x.transpose(0, 2, 3, 1)' if first else ''}"
    if pixels.dtype != np.uint8:
        at_most_one = pixels.size and np.issubdtype(pixels.dtype, np.floating) and pixels.max() <= 1.0
        how = "(x * 255).round().astype('uint8')" if at_most_one else "x.astype('uint8'), with values from 0 to 255"
        return f"{pair[0]} is {pixels.dtype}; {form}: save {how}, before any normalisation"
    if not np.issubdtype(labels.dtype, np.integer):
        return f"{pair[1]} is {labels.dtype}; labels are whole numbers from 0"
    if labels.size != len(labels) or len(labels) != len(pixels):
        one_hot = ": save y.argmax(1)" if labels.ndim == 2 and labels.shape[1] > 1 else ""
        rule = f"there must be one label for each of the {len(pixels)} pictures"
        return f"{pair[1]} has the shape {list(labels.shape)}; {rule}{one_hot}"
    return None if len(labels) else f"{pair[0]} is empty"


def _of_classes(key: str, where: str, splits: dict[str, Pictures], classes: tuple[str, ...] | None) -> Collected:
    """Returns the pictures with the names of their classes, which are numbers if there are no names."""
    numbers = sorted({int(label) for pictures in splits.values() for label in np.unique(pictures.labels)})
    known = classes or tuple(map(str, range(numbers[-1] + 1)))
    faults = []
    if numbers[0] < 0 or numbers[-1] >= len(known):
        faults.append(
            f"{where}: labels go from {numbers[0]} to {numbers[-1]}; with {len(known)} classes they go from 0"
        )
    elif classes is None and numbers[0] != 0:
        faults.append(
            f"{where}: labels go from {numbers[0]} to {numbers[-1]}; they must begin at 0: save y - {numbers[0]}"
        )
    elif classes is None and len(numbers) != len(known):
        without = [number for number in range(len(known)) if number not in numbers]
        faults.append(
            f"{where}: no picture has the label {few(without)}; name all classes under classes if that is right"
        )
    if faults:
        raise refuse(key, *faults)
    return Collected(splits, known)
