"""Reads pictures in batches, in this program or in others, and keeps those of fixed splits; seeds fix what is random.

What is read does not depend on the number of processes: the augmentation of each picture has a seed of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from toolkit.base.errors import UserError
from toolkit.tasks.images.pictures import Pictures
from toolkit.tasks.images.transforms import Preparation, seeded
from toolkit.tasks.task import Batch

MOST_BYTES = 2**30  # of pictures of fixed splits that are kept in memory, all splits together

READ_AT_ONCE = 32

SEEDS_APART = 2**31  # seeds of pictures between two seeds of training

Place = tuple[int, int | None]  # the position of a picture, and the seed of its augmentation; None for none


class _Prepared(Dataset[Any]):
    """Gives prepared pictures, uint8 [channels, side, side], or the words of the error where one cannot be read."""

    def __init__(self, pictures: Pictures, preparation: Preparation) -> None:
        self.pictures, self.preparation = pictures, preparation

    def __getitem__(self, place: Place) -> Tensor | str:
        position, seed = place
        try:
            picture = self.pictures.open(position, self.preparation.mode)
        except UserError as error:  # raised in another process, it would come with that process's traceback
            return str(error)
        if seed is None:
            return self.preparation.fixed(picture)
        with seeded(seed):
            return self.preparation.random(picture)


def read(
    pictures: Pictures, preparation: Preparation, places: Iterable[Sequence[Place]], workers: int
) -> Iterator[Tensor]:
    """Yields one tensor of pictures [B, channels, side, side], uint8, for each sequence of places.

    Raises:
        UserError: a picture cannot be read.
    """
    loader: DataLoader[Any] = DataLoader(
        _Prepared(pictures, preparation),
        batch_sampler=places,  # type: ignore[arg-type]  # torch takes any iterable of places
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator().manual_seed(0),  # else it draws from the generator of the program
    )
    for items in loader:
        faults = [item for item in items if isinstance(item, str)]
        if faults:
            raise UserError(faults[0])
        yield torch.stack(items)


@dataclass(eq=False)
class Reader:
    """Reads the batches of splits and of training.

    kept: the pictures that were read of each split so far, from the first one on; uint8.
    """

    preparation: Preparation
    workers: int
    most_bytes: int = MOST_BYTES
    kept: dict[int, Tensor] = field(default_factory=dict)

    def fixed(self, pictures: Pictures, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Yields the first `limit` pictures in order, without augmentation; they are kept if there is room."""
        end = len(pictures) if limit is None else min(limit, len(pictures))
        starts = range(0, end, batch_size)
        for first, part in zip(starts, self._parts(pictures, batch_size, end), strict=True):
            yield self._batch(part, pictures, range(first, first + len(part)))

    def training(self, pictures: Pictures, batch_size: int, seed: int, share: float) -> Iterator[Batch]:
        """Yields shuffled epochs without end, with augmentation; an incomplete last batch is left out."""
        draws, same_draws = itertools.tee(_draws(len(pictures), batch_size, seed, share))
        for part, drawn in zip(read(pictures, self.preparation, draws, self.workers), same_draws, strict=True):
            yield self._batch(part, pictures, [place for place, _ in drawn])

    def _parts(self, pictures: Pictures, batch_size: int, end: int) -> Iterator[Tensor]:
        known = self.kept.get(id(pictures))
        count = 0 if known is None else len(known)
        if count < end:
            first = next(read(pictures, self.preparation, [[(0, None)]], 0)) if known is None else known[:1]
            others = sum(kept.nbytes for key, kept in self.kept.items() if key != id(pictures))
            if others + end * first.nbytes > self.most_bytes:
                yield from read(pictures, self.preparation, _blocks(0, end, batch_size), self.workers)
                return
            new = list(read(pictures, self.preparation, _blocks(count, end, READ_AT_ONCE), self.workers))
            known = self.kept[id(pictures)] = torch.cat(new if known is None else [known, *new])
        assert known is not None
        yield from torch.split(known[:end], batch_size)

    def _batch(self, part: Tensor, pictures: Pictures, places: Sequence[int]) -> Batch:
        labels = torch.from_numpy(pictures.labels)[list(places)]
        return Batch((self.preparation.scaled(part),), labels)


def _blocks(first: int, end: int, size: int) -> Iterator[list[Place]]:
    """Yields the positions from `first` up to `end` in blocks of `size`."""
    for start in range(first, end, size):
        yield [(position, None) for position in range(start, min(start + size, end))]


def _draws(total: int, batch_size: int, seed: int, share: float) -> Iterator[list[Place]]:
    """Yields the positions of training batches without end; each picture that is drawn gets its own seed."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randperm(total, generator=generator)[: max(1, round(share * total))]
    seeds = itertools.count(seed * SEEDS_APART)
    while True:
        shuffled = pool[torch.randperm(len(pool), generator=generator)].tolist()
        for first in range(0, max(1, len(pool) - batch_size + 1), batch_size):
            yield [(position, next(seeds)) for position in shuffled[first : first + batch_size]]
