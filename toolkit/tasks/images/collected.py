"""Holds what all sources of pictures give: the splits that there are, the classes, and the faults that were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from toolkit.tasks.contract import TaskFault
from toolkit.tasks.images.pictures import Pictures

SPLIT_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}

MOST_SHOWN = 3


@dataclass(frozen=True)
class Collected:
    """Holds the pictures by split; `classes` are the names of the classes in the order of their labels."""

    splits: Mapping[str, Pictures]
    classes: tuple[str, ...]


class FilesError(Exception):
    """Says that the pictures cannot be collected; `faults` hold each reason with its place in the settings."""

    def __init__(self, faults: Iterable[TaskFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(message for _, message in self.faults))


def refuse(key: str, *messages: str) -> FilesError:
    """Returns the error for faults of one key of `data`."""
    return FilesError((("data", key), message) for message in messages)


def few(names: Sequence[object]) -> str:
    """Returns at most three of the names, and how many more there are."""
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"{', '.join(map(str, names[:MOST_SHOWN]))}{more}"


def split_of(name: str) -> str | None:
    """Returns the split that goes by this name: `train`, `validation` or `test`; None if none does."""
    return next((split for split, names in SPLIT_NAMES.items() if name in names), None)
