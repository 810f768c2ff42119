"""Holds the tasks `cifar10-resnetN`: CIFAR-10 with the pretrained networks of He et al.

**The networks were trained on all 50,000 training images** (their loss on these is about 0.01, against 0.3 on test
images). Every split but `test` is a part of the training images, so scores and validation accuracy look better than
they are: only test accuracy says how good a model is.

The validation images are the same for every `draw`; a draw chooses the images for scoring, calibration and holdout, and
all other images are trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.tasks.cifar10.card import NUM_IMAGES, task_of
from toolkit.tasks.cifar10.data import Cifar10, Images, load_images, load_weights
from toolkit.tasks.cifar10.model import CifarResNet
from toolkit.tasks.classifier import Classifier
from toolkit.tasks.task import Batch, Split

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the networks were trained with

VALIDATION_SEED = 1010

SIZES: Mapping[Split, int] = {"validation": NUM_IMAGES, "score": 512, "calibration": 512, "holdout": 512}

DRAWN: tuple[Split, ...] = ("score", "calibration", "holdout")

SHIFT = 4  # the most pixels that a training image is moved by in each direction

EXAMPLES_SEED = 0


class Cifar10Task(Classifier):
    """Is a `Task` with a pretrained network and CIFAR-10; images and weights are read only when they are needed."""

    protected: tuple[str, ...] = ()

    def __init__(
        self,
        depth: int,
        *,
        draw: int = 0,
        images: Callable[[], Cifar10] = load_images,
        weights: Callable[[int], Mapping[str, Tensor]] = load_weights,
        sizes: Mapping[Split, int] = SIZES,
    ) -> None:
        """Names the network and the data.

        depth: the number of layers of the network.
        draw: the number of the draw, which chooses the images of three splits.
        images: gives the images.
        weights: gives the tensors of the network for a depth.
        sizes: the number of training images in the validation split and in the three splits of the draw.
        """
        self.name, self.depth, self.draw = task_of(depth), depth, draw
        self._load, self._weights, self._sizes = images, weights, sizes

    def build_model(self) -> nn.Module:
        """Returns the network with random weights."""
        return CifarResNet(self.depth)

    def load_baseline(self) -> nn.Module:
        """Returns the pretrained network in eval mode.

        Raises:
            UserError: the weights are missing or are not the published ones.
        """
        model = self.build_model()
        model.load_state_dict(self._weights(self.depth))
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns noise of the images' scale, so that a saved model can be inspected without the data."""
        generator = torch.Generator().manual_seed(EXAMPLES_SEED)
        return (torch.randn(batch_size, 3, 32, 32, generator=generator),)

    def num_examples(self, split: Split) -> int:
        """Returns the number of images in a split."""
        return len(self._data.test if split == "test" else self._parts[split])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the images of a split in a fixed order, without augmentation."""
        images, places = self._images_of(split)
        places = places[:limit]
        for first in range(0, len(places), batch_size):
            yield _batch(images.at(places[first : first + batch_size]))

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields shuffled, randomly mirrored and moved epochs without end; an incomplete last batch is left out."""
        rng = np.random.default_rng(seed)
        pool = rng.permutation(self._training)[: max(1, round(share * len(self._training)))]
        while True:
            shuffled = rng.permutation(pool)
            for first in range(0, max(1, len(pool) - batch_size + 1), batch_size):
                images = self._data.train.at(shuffled[first : first + batch_size])
                yield _batch(Images(augmented(images.pixels, rng), images.labels))

    @cached_property
    def _data(self) -> Cifar10:
        return self._load()

    def _images_of(self, split: Split) -> tuple[Images, NDArray[np.int64]]:
        if split == "test":
            return self._data.test, np.arange(len(self._data.test))
        return self._data.train, self._parts[split]

    @property
    def _parts(self) -> dict[Split, NDArray[np.int64]]:
        return self._division[0]

    @property
    def _training(self) -> NDArray[np.int64]:
        return self._division[1]

    @cached_property
    def _division(self) -> tuple[dict[Split, NDArray[np.int64]], NDArray[np.int64]]:
        """Returns positions in the training images: those of every split, and those that are left for training."""
        labels = self._data.train.labels
        num_fixed = sum(self._sizes.values())
        if num_fixed >= len(labels):
            raise UserError(
                f"{self.name}: the fixed splits need {num_fixed} training images and leave some to train on; "
                f"there are {len(labels)}"
            )
        order = balanced(labels, np.arange(len(labels)), VALIDATION_SEED)
        parts: dict[Split, NDArray[np.int64]] = {"validation": order[: self._sizes["validation"]]}
        order = balanced(labels, np.sort(order[self._sizes["validation"] :]), self.draw)
        for split in DRAWN:
            parts[split], order = order[: self._sizes[split]], order[self._sizes[split] :]
        return parts, np.sort(order)


def balanced(labels: NDArray[np.int64], places: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Returns the positions in a random order whose every beginning holds the classes about equally often."""
    shuffled = np.random.default_rng(seed).permutation(places)
    classes = labels[shuffled]
    rank = np.empty(len(classes), dtype=np.int64)  # of each image within its class
    for label in np.unique(classes):
        rank[classes == label] = np.arange((classes == label).sum())
    return shuffled[np.lexsort((classes, rank))]


def augmented(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Returns images [B, height, width, 3] moved by up to SHIFT pixels on black; about half of them are mirrored."""
    count, height, width = pixels.shape[:3]
    room = np.pad(pixels, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    top, left = rng.integers(0, 2 * SHIFT + 1, (2, count, 1, 1))
    columns = np.arange(width)[None, None, :]
    columns = np.where(rng.random((count, 1, 1)) < 0.5, columns[..., ::-1], columns)
    rows = np.arange(height)[None, :, None]
    moved: NDArray[np.uint8] = room[np.arange(count)[:, None, None], rows + top, columns + left]
    return moved


def _batch(images: Images) -> Batch:
    scaled = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return Batch(((scaled - mean) / deviation,), torch.from_numpy(images.labels))


def make_resnet20() -> Cifar10Task:
    """Returns the task of ResNet-20."""
    return Cifar10Task(20)


def make_resnet32() -> Cifar10Task:
    """Returns the task of ResNet-32."""
    return Cifar10Task(32)


def make_resnet44() -> Cifar10Task:
    """Returns the task of ResNet-44."""
    return Cifar10Task(44)
