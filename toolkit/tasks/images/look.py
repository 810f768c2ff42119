"""Looks at the pictures and the weights that settings name, and returns every fault, before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from toolkit.base.errors import UserError
from toolkit.tasks.contract import FilesSeen, TaskFault
from toolkit.tasks.images.arrays import from_npz, from_torchvision
from toolkit.tasks.images.collected import Collected, FilesError, few, refuse
from toolkit.tasks.images.divided import Divided, divide
from toolkit.tasks.images.files import from_csv, from_folder, missing_files, unreadable
from toolkit.tasks.images.settings import TOP_5, ImageData, ImageModel, ImageSettings
from toolkit.tasks.images.transforms import Preparation, prepare
from toolkit.zoo.build import build_skeleton
from toolkit.zoo.limits import MOST_BYTES
from toolkit.zoo.weights import WeightsMisfitError, read_weights

MOST_READ = 64  # files of each split that are read whole

MOST_OPENED = 20_000  # files of each split that are opened beside these

USUAL_CLASSES = 1000  # of models whose arguments do not say it

HOW_MANY = "num_classes"  # the argument of all classifiers of timm and torchvision


@dataclass(frozen=True, eq=False)
class Seen:
    """Holds what the settings name: the pictures and how they are prepared; None for what has faults."""

    divided: Divided | None
    preparation: Preparation | None
    faults: tuple[TaskFault, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns in words which pictures there are and how the model gets them."""
        prepared = () if self.preparation is None else (self.preparation.words,)
        return (() if self.divided is None else self.divided.notes) + prepared


def look_at_files(settings: ImageSettings, folder: Path) -> FilesSeen:
    """Returns every fault of the pictures and the weights; many pictures are opened, and some of them read whole.

    folder: what relative paths start from.
    """
    seen = look(settings, folder, opens_many=True)
    return FilesSeen(seen.faults, seen.notes)


def look(settings: ImageSettings, folder: Path, *, opens_many: bool) -> Seen:
    """Returns the pictures, how they are prepared, and every fault.

    opens_many: whether up to MOST_OPENED files of each split are opened; without, only some are read.
    """
    faults: list[TaskFault] = []
    divided = preparation = None
    try:
        divided = _pictures(settings.data, folder, opens_many)
    except FilesError as error:
        faults += error.faults
    try:
        model = build_skeleton(settings.model.name, settings.model.arguments, MOST_BYTES)
    except UserError as error:
        return Seen(divided, None, (*faults, (("model", "name"), str(error))))
    try:
        preparation = prepare(settings, model)
    except UserError as error:
        faults.append(((), str(error)))
    classes = () if divided is None else divided.classes
    head_faults = list(_head_faults(settings, model, classes))
    faults += head_faults
    if settings.metric == TOP_5 and 0 < len(classes) <= 5:
        faults.append((("metric",), f"{TOP_5} is always 1 with {len(classes)} classes; choose another metric"))
    if not head_faults:
        faults += _weights_faults(settings.model, model, folder)
    return Seen(divided, preparation, tuple(faults))


def num_classes_of(settings: ImageModel, model: nn.Module) -> int:
    """Returns how many classes a model tells apart, as its arguments or its library say."""
    given = settings.arguments.get(HOW_MANY, getattr(model, HOW_MANY, USUAL_CLASSES))
    return given if isinstance(given, int) else USUAL_CLASSES


def _pictures(data: ImageData, folder: Path, opens_many: bool) -> Divided:
    collected = collect(data, folder)
    key = "folder" if data.folder else "csv"
    missing = missing_files(collected.splits)
    if missing:
        what = "there is no such file, or it is empty"
        raise refuse(key, f"{few(missing)}: {what} ({len(missing)} of all pictures)")
    bad = unreadable(collected.splits, MOST_OPENED, whole=False) if opens_many else []
    bad = bad or unreadable(collected.splits, MOST_READ, whole=True)
    if bad:
        raise refuse(key, few(bad))
    return divide(collected, data)


def collect(data: ImageData, folder: Path) -> Collected:
    """Returns the pictures that the settings name, in the splits that there are; `folder`: as in `look_at_files`.

    Raises:
        FilesError: the pictures cannot be collected.
    """
    if data.folder is not None:
        return from_folder(folder / data.folder, data.classes)
    if data.csv is not None:
        return from_csv(folder / data.csv, data.classes)
    if data.npz is not None:
        return from_npz(folder / data.npz, data.classes)
    assert data.torchvision is not None and data.root is not None
    return from_torchvision(data.torchvision, folder / data.root, data.classes)


def _head_faults(settings: ImageSettings, model: nn.Module, classes: tuple[str, ...]) -> Iterator[TaskFault]:
    """Yields what is wrong with the number of classes of the model, beside that of the data."""
    count, place = num_classes_of(settings.model, model), ("model", "arguments")
    if count == 0:
        yield place, f"{HOW_MANY}: 0 leaves the classifier out, and the model gives no logits"
    elif classes and count != len(classes) and (count, len(classes)) != (1, 2):
        yield (
            place,
            f"the model tells {count} classes apart, and the data have {len(classes)} ({few(classes)}): set "
            f"arguments: {{{HOW_MANY}: {len(classes)}}} if it was trained for these, or name the classes of all its "
            "outputs, in their order, under data.classes",
        )


def _weights_faults(settings: ImageModel, model: nn.Module, folder: Path) -> Iterator[TaskFault]:
    """Yields what is wrong with the file of weights."""
    place = ("model", "weights")
    try:
        read_weights(model, folder / settings.weights, settings.weights_key)
    except WeightsMisfitError as error:
        yield place, _why_misfit(settings, model, folder, error) or str(error)
    except UserError as error:
        yield place, str(error)


def _why_misfit(settings: ImageModel, model: nn.Module, folder: Path, error: WeightsMisfitError) -> str | None:
    """Returns in words that weights differ from the model in the number of classes alone; None if they do not."""
    state = model.state_dict()
    unlike = [name for name, value in state.items() if error.shapes.get(name, ()) != tuple(value.shape)]
    count = num_classes_of(settings, model)
    heads = [name for name in unlike if state[name].shape[:1] == (count,) and len(error.shapes.get(name, ())) > 0]
    counts = {error.shapes[name][0] for name in heads if error.shapes[name][1:] == tuple(state[name].shape)[1:]}
    if heads != unlike or len(counts) != 1 or set(error.shapes) != set(state):
        return None
    return (
        f"{folder / settings.weights}: the weights are of a model of {counts.pop()} classes, and this model tells "
        f"{count} apart ({few(heads)}): give weights that were trained for these classes"
    )
