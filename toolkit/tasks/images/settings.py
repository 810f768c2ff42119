"""Defines the settings of the task `images`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from toolkit.base.files import moved_path
from toolkit.base.settings import Positive, Ratio, Settings
from toolkit.tasks.contract import TaskFault, TaskSettings
from toolkit.zoo.names import argument_faults, split_name
from toolkit.zoo.settings import ZooModel

SOURCES: Final = ("folder", "csv", "npz", "torchvision")

NAME: Final = "images"

ACCURACY: Final = "accuracy"
TOP_5: Final = "top-5 accuracy"
MACRO_F1: Final = "macro F1"

ImageMetric = Literal["accuracy", "top-5 accuracy", "macro F1"]

TorchvisionData = Literal[
    "CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "SVHN", "STL10", "USPS"
]  # whose pictures are one array, and whose files are checked by their MD5 or hold no pickle

_Text = Annotated[str, Field(min_length=1)]
_Share = Annotated[float, Field(gt=0.0, lt=1.0)]
_Channels = Annotated[tuple[float, ...], Field(min_length=1, strict=False)]


class ImageData(Settings):
    """Says where the pictures are: in a folder, in the list of a csv file, in an npz file, or in data of torchvision.

    Exactly one of `folder`, `csv`, `npz` and `torchvision` is given. A relative path starts from the recipe's folder.
    There must be training pictures. The pictures to choose what to cut by, to fit repairs to and to check them with
    are three draws from them. Without validation pictures, a share of the training pictures is set aside for
    validation: a model that was trained on all of them has seen these, so that validation flatters it. Without test
    pictures the recipe is refused, unless `test_share` sets a part of the given validation pictures aside. Every draw
    takes as large a share of each class, and a seed fixes it.

    folder: a folder with the sub-folders `train`, `val` (or `valid`, `validation`) and `test`, each with one folder of
        pictures per class.
    csv: a list with the columns `path`, `label` and `split`; a relative path starts from the list's folder, and a label
        is the name of a class, or its number from 0.
    npz: arrays `x_train`, `y_train`, `x_val`, `y_val`, `x_test` and `y_test`, or `train_images`, `train_labels` and so
        on: pictures are uint8 [N, height, width] or [N, height, width, 3], labels are numbers from 0.
    torchvision: a data set of torchvision that lies on the disk below `root`; nothing is downloaded.
    root: the folder of the data set of torchvision.
    classes: the names of all classes in the order of the model's outputs; null sorts the names of the training folders,
        or of the labels in the list, as text.
    validation_share: the share of the training pictures for validation, where the data have no validation pictures;
        0.1 by default.
    test_share: the share of the validation pictures for the test, where the data have no test pictures; null refuses
        such data.
    fixed_examples: the number of pictures in each of the three draws; null takes a third of the training pictures, up
        to 512.
    seed: the number that fixes all draws, 0 by default.
    """

    folder: _Text | None = None
    csv: _Text | None = None
    npz: _Text | None = None
    torchvision: TorchvisionData | None = None
    root: _Text | None = None
    classes: Annotated[tuple[_Text, ...], Field(min_length=2, strict=False)] | None = None
    validation_share: _Share = 0.1
    test_share: _Share | None = None
    fixed_examples: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def faults(self) -> Iterator[TaskFault]:
        """Yields place and message of each fault that shows without the files."""
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            yield (), f"give one of {', '.join(SOURCES)}; there is {found}"
        if self.torchvision is not None and self.root is None:
            yield ("root",), "missing; name the folder in which the data set of torchvision lies"
        if self.torchvision is None and self.root is not None:
            yield ("root",), "is for a data set of torchvision alone; leave it out"
        repeated = [name for name in dict.fromkeys(self.classes or ()) if (self.classes or ()).count(name) > 1]
        if repeated:
            yield ("classes",), f"{repeated[0]!r} is there twice; name each class once"

    def file_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are paths."""
        return ("folder", "csv", "npz", "root")


class ImageModel(Settings):
    """Names the classifier and its trained weights.

    name: `timm/NAME` or `torchvision/NAME`, such as `timm/resnet18`.
    arguments: keyword arguments of the model's factory, such as `{num_classes: 4}`, as the model was trained with.
    weights: the file of the trained weights (.safetensors, .pt, .pth, .bin, .ckpt or .tar); a relative path starts from
        the recipe's folder. The file may hold a whole checkpoint, and names may begin with `module.` or `_orig_mod.`.
        Nothing is ever downloaded.
    weights_key: the key of the weights in a checkpoint that holds several, such as `model_ema`; null takes the only
        ones that fit the model.
    """

    name: _Text
    arguments: dict[str, Any] = Field(default_factory=dict)  # what they may be: toolkit.zoo.names
    weights: _Text
    weights_key: _Text | None = None

    def faults(self) -> Iterator[TaskFault]:
        """Yields place and message of each fault that shows without the files and the zoo's library."""
        try:
            library, _ = split_name(self.name)
        except ValueError as error:
            yield ("name",), str(error)
            return
        if library not in ("timm", "torchvision"):
            yield ("name",), f"{self.name!r} is of {library}; this task takes timm/NAME or torchvision/NAME"
            return
        for key, message in argument_faults(library, self.arguments):
            yield ("arguments", *([key] if key else [])), message

    def file_keys(self) -> tuple[str, ...]:
        """Returns the keys whose values are paths."""
        return ("weights",)


class Augmentation(Settings):
    """States timm's random augmentation, which training alone sees; no split that is measured is ever augmented.

    scale: the smallest and the largest share of a picture's area that is cut out; [0.08, 1.0] by default.
    hflip: the probability that a picture is mirrored; 0.5 by default.
    vflip: the probability that a picture is put upside down; 0.0 by default.
    color_jitter: how far brightness, contrast and saturation are changed at most; 0.4 by default.
    auto_augment: a policy of timm, such as `rand-m9-mstd0.5`, which replaces the jitter of colours; null for none.
    """

    scale: Annotated[tuple[Ratio, Ratio], Field(strict=False)] = (0.08, 1.0)
    hflip: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    vflip: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    color_jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.4
    auto_augment: Annotated[str, Field(pattern=r"^[a-z0-9.-]{1,80}$")] | None = None

    def faults(self) -> Iterator[TaskFault]:
        """Yields place and message of each fault of the values together."""
        if self.scale[0] > self.scale[1]:
            yield ("scale",), f"[{self.scale[0]:g}, {self.scale[1]:g}] must begin with the smaller share"


class ImageSettings(TaskSettings):
    """Classifies pictures of one's own by a trained model of timm or torchvision.

    data: where the pictures are.
    model: the classifier and its weights.
    metric: `accuracy` (the default), `top-5 accuracy`, or `macro F1`: the mean over the classes of the F1 score.
    size: the side of the pictures that the model gets, in pixels; null is the model's own.
    mean, std: what is subtracted from each channel and what the rest is divided by, where pictures have values from 0
        to 1; null is the model's own.
    crop: the share of the resized picture's side that is cut out of its centre, as timm's `crop_pct`; null is the
        model's own.
    augment: the random augmentation of training pictures; null for none.
    workers: the number of processes that read pictures; 0 (the default) reads them in the program itself. What is read
        does not depend on it.
    """

    type: Literal["images"] = NAME
    data: ImageData
    model: ImageModel
    metric: ImageMetric = ACCURACY
    size: Annotated[int, Field(ge=1, le=2048)] | None = None
    mean: _Channels | None = None
    std: _Channels | None = None
    crop: Ratio | None = None
    augment: Augmentation | None = Field(default_factory=Augmentation)
    workers: Annotated[int, Field(ge=0, le=64)] = 0

    def faults(self) -> Iterator[TaskFault]:
        """Yields place and message of each fault that shows without the data."""
        parts = {"data": self.data, "model": self.model, "augment": self.augment}
        for key, part in parts.items():
            yield from (((key, *place), message) for place, message in ([] if part is None else part.faults()))
        channels = self.model.arguments.get("in_chans", 3)
        if channels not in (1, 3):
            yield ("model", "arguments", "in_chans"), f"is {channels!r}; pictures have 3 channels, or 1 in grey"
        for key, values in {"mean": self.mean, "std": self.std}.items():
            fault = None if values is None else _fault_of_channels(key, values, channels)
            if fault:
                yield (key,), fault

    def moved(self, old: Path, new: Path) -> ImageSettings:
        """Returns the settings whose relative paths start from the folder `new` instead of `old`."""
        return self.model_copy(update={"data": _moved(self.data, old, new), "model": _moved(self.model, old, new)})

    def zoo_model(self) -> ZooModel:
        """Returns the model by its name alone, by which a saved model is built again without the data."""
        return ZooModel(name=self.model.name, arguments=self.model.arguments, input_size=self.size)


def _moved(part: Any, old: Path, new: Path) -> Any:
    paths = {key: value for key in part.file_keys() if (value := getattr(part, key)) is not None}
    return part.model_copy(update={key: moved_path(path, old, new) for key, path in paths.items()})


def _fault_of_channels(key: str, values: tuple[float, ...], channels: int) -> str | None:
    """Returns what is wrong with the numbers of `mean` or `std`, in words."""
    if len(values) not in (1, channels):
        return f"has {len(values)} numbers; give one, or one for each of the {channels} channels"
    if max(values) > 1.0:
        return f"{max(values):g} is of a picture with values from 0 to 255; here they are from 0 to 1: divide by 255"
    if key == "std" and min(values) <= 0.0:
        return f"{min(values):g} cannot be divided by; each must be above 0"
    return None
