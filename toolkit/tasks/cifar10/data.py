"""Reads CIFAR-10 and the pretrained networks from the folder that TOOLKIT_DATA names; neither ships with the toolkit.

Images: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; 50,000 training and 10,000 test
images of 32 x 32 pixels in 10 classes. Weights: Yerlan Idelbayev's pytorch_resnet_cifar10 (BSD-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from toolkit.base.errors import UserError
from toolkit.tasks.local_data import ROOT_VARIABLE, Arrays, check_arrays, find_data, read_arrays

FOLDER = Path("cifar10")

IMAGES_FILE = FOLDER / "cifar10.npz"

IMAGES_SHA256 = "3605d8e85b5a0718dd790b236e186dda629d2f38de921199d54ba4fac95ba7d7"  # by `local_data.checksum`

WEIGHTS_SHA256 = {  # depth of the network -> `local_data.checksum` of its tensors
    20: "fda6040cb484994c57727b181144aa73d816199c9b2f3682afad5b4a54678f5a",
    32: "788ed7e1b0deaee6ae1af9b4020b9c02dc7fa47a804f9bba8ee1e74dad1febfc",
    44: "4762d495f6962d413a50cd27aea9440d4939c33380a6484377632d356eec448f",
}

WEIGHTS_SOURCES = {  # depth -> published file and its SHA-256, which is checked before the file is read
    20: ("resnet20-12fca82f.th", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8"),
    32: ("resnet32-d509ac18.th", "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850"),
    44: ("resnet44-014dd654.th", "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4"),
}

_CONVERT = f"run python -m toolkit.tasks.cifar10.convert FILE --out DIR/{FOLDER}, and set {ROOT_VARIABLE}=DIR"

HOW_TO_GET_IMAGES = (
    f"download https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, {_CONVERT} (SHA-256 of the arrays: "
    f"{IMAGES_SHA256})"
)


@dataclass(frozen=True, eq=False)
class Images:
    """Holds images and their classes.

    pixels: uint8 [N, 32, 32, 3].
    labels: int64 [N].
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: NDArray[np.int64]) -> Images:
        """Returns the images at these positions, in this order."""
        return Images(self.pixels[places], self.labels[places])


@dataclass(frozen=True, eq=False)
class Cifar10:
    """Holds the two official parts of the data."""

    train: Images
    test: Images


def how_to_get_weights(depth: int) -> str:
    """Returns in words where to get the weights, and their checksum."""
    name, sha256 = WEIGHTS_SOURCES[depth]
    return (
        f"download pretrained_models/{name} of https://github.com/akamaster/pytorch_resnet_cifar10 "
        f"(SHA-256 {sha256}), {_CONVERT}"
    )


def read_images(path: Path, sha256: str = IMAGES_SHA256) -> Cifar10:
    """Returns the images in an npz file of `x_train`, `y_train`, `x_test` and `y_test`, and checks their SHA-256.

    Raises:
        UserError: the file cannot be read, or its arrays are not the published ones.
    """
    arrays = read_arrays(path, HOW_TO_GET_IMAGES)
    check_arrays(path, arrays, sha256, HOW_TO_GET_IMAGES)
    return Cifar10(_part(arrays, "train"), _part(arrays, "test"))


def load_images() -> Cifar10:
    """Returns the images below TOOLKIT_DATA, which are read only once.

    Raises:
        UserError: the variable or the file is missing, or the file is not the published one.
    """
    return _read_once(find_data(IMAGES_FILE, "the CIFAR-10 images", HOW_TO_GET_IMAGES))


def load_weights(depth: int) -> dict[str, Tensor]:
    """Returns the tensors of the pretrained network with `depth` layers, by name.

    Raises:
        UserError: the variable or the file is missing, or its tensors are not the published ones.
    """
    how = how_to_get_weights(depth)
    path = find_data(FOLDER / weights_file(depth), f"the weights of ResNet-{depth} for CIFAR-10", how)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as a safetensors file ({error}); {how}") from error
    check_arrays(path, as_arrays(tensors), WEIGHTS_SHA256[depth], how)
    return tensors


def weights_file(depth: int) -> str:
    """Returns the name of the converted file of weights."""
    return f"resnet{depth}.safetensors"


def as_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Returns tensors on the CPU as arrays, by name."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _part(arrays: Arrays, name: str) -> Images:
    return Images(arrays[f"x_{name}"], arrays[f"y_{name}"])


@lru_cache(maxsize=1)
def _read_once(path: Path) -> Cifar10:
    return read_images(path)
