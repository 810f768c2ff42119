"""Divides the pictures into the splits of a task; every draw takes as large a share of each class, fixed by a seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError
from toolkit.tasks.images.collected import Collected, FilesError, few, refuse
from toolkit.tasks.images.pictures import Labels, Pictures, shared_files
from toolkit.tasks.images.settings import ImageData
from toolkit.tasks.overlap import BY_CHANCE, check_apart
from toolkit.tasks.task import Split

DRAWN: tuple[Split, ...] = ("score", "calibration", "holdout")

MOST_DRAWN = 512  # pictures in each of these splits, unless `fixed_examples` says otherwise

MOST_COMPARED = 2048  # files of a split that are looked for among those of another

MEASURED: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Divided:
    """Holds the pictures of every split.

    train: the pictures to train on, from which those of the splits in `DRAWN` are drawn.
    fixed: the pictures of each split that never changes.
    classes: the names of the classes in the order of their labels.
    notes: how many pictures there are, and which split was made of which, in sentences for people.
    """

    train: Pictures
    fixed: Mapping[Split, Pictures]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def divide(collected: Collected, data: ImageData) -> Divided:
    """Returns the pictures of every split; splits that the data do not have are made as `ImageData` says.

    Raises:
        FilesError: there are no test pictures and nothing says where to take them from, there are too few pictures, or
            two splits share pictures.
    """
    splits, made = dict(collected.splits), []
    key = next(name for name in ("folder", "csv", "npz", "torchvision") if getattr(data, name) is not None)
    if "test" not in splits:
        if data.test_share is None or "validation" not in splits:
            raise refuse(key, _no_test("validation" in splits))
        splits["test"], splits["validation"] = _two_parts(splits["validation"], data.test_share, data.seed)
        made.append(f"test: {data.test_share:g} of the validation pictures, set aside by a draw")
    elif data.test_share is not None:
        raise refuse("test_share", "there are test pictures, so that this share has no use; leave it out")
    if "validation" not in splits:
        splits["validation"], splits["train"] = _two_parts(splits["train"], data.validation_share, data.seed)
        made.append(
            f"validation: {data.validation_share:g} of the training pictures, set aside by a draw; a model that was "
            "trained on them looks better there than it is"
        )
    empty = [split for split in ("train", *MEASURED) if not len(splits[split])]
    if empty:
        raise refuse(key, f"there are too few pictures for {' and '.join(empty)}")
    made += _check_apart({split: splits[split] for split in ("train", *MEASURED)}, key)
    drawn = _drawn(splits["train"], data)
    counts = ", ".join(f"{split} {len(splits[split])}" for split in ("train", *MEASURED))
    notes = (
        f"pictures: {counts}; {len(collected.classes)} classes ({few(collected.classes)}); "
        f"{len(drawn['score'])} training pictures in each of {', '.join(DRAWN)}",
        *made,
    )
    fixed = {**drawn, "validation": splits["validation"], "test": splits["test"]}
    return Divided(splits["train"], fixed, collected.classes, notes)


def stratified(labels: Labels, seed: int) -> NDArray[np.int64]:
    """Returns all positions in a random order, of which every beginning has about as large a share of each class."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    place = np.empty(len(labels))  # of each picture within its class, from 0 to 1
    for label in np.unique(labels):
        is_of_class = labels[shuffled] == label
        count = int(is_of_class.sum())
        place[is_of_class] = (np.arange(count) + rng.random()) / count
    return np.asarray(shuffled[np.argsort(place, kind="stable")], dtype=np.int64)


def _two_parts(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """Returns a share of the pictures, and the others, each in their own order."""
    order = stratified(pictures.labels, seed)
    count = round(share * len(order))
    return pictures.at(np.sort(order[:count])), pictures.at(np.sort(order[count:]))


def _drawn(train: Pictures, data: ImageData) -> dict[Split, Pictures]:
    most = len(train) // len(DRAWN)
    count = min(MOST_DRAWN, most) if data.fixed_examples is None else data.fixed_examples
    if not 1 <= count <= most:
        raise FilesError(
            [
                (
                    ("data", "fixed_examples"),
                    f"{', '.join(DRAWN)} are three disjoint draws of {max(1, count)} from the {len(train)} training "
                    f"pictures; {f'give at most {most}' if most else 'there must be 3 at least'}",
                )
            ]
        )
    order = stratified(train.labels, data.seed + 1)
    return {split: train.at(np.sort(order[part * count :][:count])) for part, split in enumerate(DRAWN)}


def _check_apart(splits: Mapping[str, Pictures], key: str) -> list[str]:
    """Returns in words which splits share a few files, as large collections have twins.

    Raises:
        FilesError: two splits share so many pictures that this is no chance.
    """
    if splits["train"].pixels is not None:
        try:
            check_apart({split: pictures.as_rows() for split, pictures in splits.items()})
        except UserError as error:
            raise refuse(key, str(error)) from error
        return []
    faults, notes = [], []
    for first, second in itertools.combinations(splits, 2):
        shared = shared_files(splits[first], splits[second], MOST_COMPARED)
        told = f"{first} and {second} share {len(shared)} pictures: {few(shared)} of {second}"
        if len(shared) > max(2.0, BY_CHANCE * min(MOST_COMPARED, len(splits[second]))):
            faults.append(f"{told}; no figure would mean anything: remove them from one of the two")
        elif shared:
            notes.append(told)
    if faults:
        raise refuse(key, *faults)
    return notes


def _no_test(has_validation: bool) -> str:
    reason = "there are no test pictures, and figures need pictures on which nothing was chosen"
    if has_validation:
        return f"{reason}; add them, or set test_share: 0.5, which sets that share of the validation pictures aside"
    return f"{reason}; add them (a model that has seen its training pictures cannot be judged by them)"
