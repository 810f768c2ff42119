"""Gives what clips are made of: handwritten digits and parts of photographs, both of which come with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_image

from toolkit.tasks.task import Split

INK = 16.0  # the value of full ink in the digits' images

PHOTOS = ("china.jpg", "flower.jpg")

SHRINK = 2  # photographs are made smaller by this factor, as their finest texture is blur

# The digits lie in the order of their writers, so ranges of them are (but for one writer at each bound) other people's.
# The columns of the photographs are given as shares of their width.
TRAINING = ((0, 1197), (0.0, 0.6))

VALIDATION = ((1197, 1497), (0.6, 0.8))

TEST = ((1497, 1797), (0.8, 1.0))

PARTS: Mapping[Split, int] = {"score": 0, "calibration": 1, "holdout": 2}  # which third of the training digits


@dataclass(frozen=True, eq=False)
class Material:
    """Holds what the clips of one split are made of.

    images: float32 [N, 8, 8], the share of ink of digits.
    labels: int64 [N], which digit each of them is.
    photos: parts of photographs, float32 [height, width], from 0 (black) to 1 (white).
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    photos: tuple[NDArray[np.float32], ...]

    def of(self, places: NDArray[np.int64]) -> Material:
        """Returns the material with these digits alone."""
        return Material(self.images[places], self.labels[places], self.photos)


@lru_cache
def training_material() -> Material:
    """Returns what training clips are made of."""
    return _material(*TRAINING)


def material_of(split: Split) -> Material:
    """Returns what the clips of a split are made of; score, calibration and holdout share no digit's image."""
    if split in PARTS:
        whole = training_material()
        return whole.of(np.arange(PARTS[split], len(whole.labels), len(PARTS)))
    return _material(*(VALIDATION if split == "validation" else TEST))


def _material(digits: tuple[int, int], columns: tuple[float, float]) -> Material:
    data = load_digits()
    rows = slice(*digits)
    images = data.images[rows].astype(np.float32) / np.float32(INK)
    return Material(images, data.target[rows].astype(np.int64), tuple(_photo(name, columns) for name in PHOTOS))


def _photo(name: str, columns: tuple[float, float]) -> NDArray[np.float32]:
    """Returns the columns of a photograph in grey, `SHRINK` times smaller."""
    grey = load_sample_image(name).astype(np.float32).mean(2) / np.float32(255)
    height, width = (size // SHRINK for size in grey.shape)
    blocks = grey[: height * SHRINK, : width * SHRINK].reshape(height, SHRINK, width, SHRINK)
    small = blocks.mean((1, 3), dtype=np.float32)
    part: NDArray[np.float32] = small[:, round(columns[0] * width) : round(columns[1] * width)]
    return part
