"""Holds pictures with their labels, as files or as one array, and opens one of them as 8-bit colours or grey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import TensorDataset

from toolkit.base.errors import UserError
from toolkit.base.files import file_sha256

DEEP_MODES = ("I", "F")  # PIL's modes of 32 bits; those of 16 bits begin with "I;"

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Holds the pictures of one split.

    labels: int64 [N].
    paths: the files; empty where the pictures are an array.
    pixels: uint8 [N, height, width] or [N, height, width, 3]; None where the pictures are files.
    """

    labels: Labels
    paths: tuple[Path, ...] = ()
    pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: Sequence[int] | NDArray[Any]) -> Pictures:
        """Returns the pictures at these positions, in this order."""
        chosen = np.asarray(places, dtype=np.int64)
        pixels = None if self.pixels is None else self.pixels[chosen]
        return Pictures(self.labels[chosen], tuple(self.paths[place] for place in chosen if self.paths), pixels)

    def open(self, place: int, mode: str) -> Image.Image:
        """Returns a picture in PIL's mode "RGB" or "L".

        Raises:
            UserError: the file is missing or damaged, or has more than 8 bits for each channel.
        """
        if self.pixels is not None:
            return Image.fromarray(self.pixels[place]).convert(mode)
        path = self.paths[place]
        try:
            with Image.open(path) as picture:
                if picture.mode in DEEP_MODES or picture.mode.startswith("I;"):
                    raise UserError(
                        f"{path}: has more than 8 bits for each channel (mode {picture.mode}), which reading would cut "
                        "off; save it with 8 bits"
                    )
                return picture.convert(mode)
        except FileNotFoundError as error:
            raise UserError(f"{path}: there is no such file") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # PIL raises all of these
            raise UserError(f"{path}: cannot be read as a picture: {' '.join(str(error).split())[:200]}") from error

    def as_rows(self) -> TensorDataset:
        """Returns pictures that are an array as tensors, whose rows can be compared."""
        return TensorDataset(torch.from_numpy(self.pixels), torch.from_numpy(self.labels))


def shared_files(first: Pictures, second: Pictures, most: int) -> list[Path]:
    """Returns the files of `second` whose content a file of `first` has too, among `most` files of `second`."""
    step = max(1, len(second.paths) // most)
    tried = second.paths[::step][:most]
    by_size: dict[int, list[Path]] = {}
    sizes = {path.stat().st_size for path in tried}
    for path in first.paths:
        if (size := path.stat().st_size) in sizes:
            by_size.setdefault(size, []).append(path)
    hashes = {size: {file_sha256(path) for path in paths} for size, paths in by_size.items()}
    return [path for path in tried if (known := hashes.get(path.stat().st_size)) and file_sha256(path) in known]
