"""Finds examples that two splits share: rows of tensors by content, items of data sets by their origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from toolkit.base.errors import UserError
from toolkit.hooks.trial import users_code
from toolkit.tasks.task import Batch, Split, Task

MOST_COMPARED = 256  # examples of each split of a task, if its data are given in batches alone

BY_CHANCE = 0.02  # the share of examples that may be in two splits of such a task, as large collections have twins

READ_AT_ONCE = 16  # examples of each such batch

CHUNK_BYTES = 2**26  # bytes of rows that are hashed at a time

# Attributes in which data sets of torchvision and others list their files, one entry per item.
LISTS_OF_FILES = ("samples", "imgs")


def check_apart(splits: Mapping[str, Any], alike: Collection[str] = ()) -> None:
    """Checks that no two splits share an example.

    Data may repeat by nature: as many shared examples are allowed as the repeats within the first of two splits make
    likely.

    splits: data sets by the name of the split.
    alike: names of splits that may share all examples, such as `train` and its augmented form.

    Raises:
        UserError: two splits share examples.
    """
    _check_origins({name: origins_of(data) for name, data in splits.items()}, alike)


def check_splits(task: Task) -> None:
    """Checks that no two splits of a task share examples, as far as the first MOST_COMPARED of each show.

    Scoring and calibration may share theirs: both only choose, and neither judges the other.

    Raises:
        UserError: two splits share examples.
    """
    origins: dict[str, list[Hashable]] = {}
    for split in get_args(Split):
        count = min(MOST_COMPARED, task.num_examples(split))
        with users_code(f"batches of task {task.name!r} fails on {split!r}"):
            batches = list(task.batches(split, READ_AT_ONCE, limit=count))
        rows = [batch.inputs for batch in batches if isinstance(batch, Batch)]
        origins[split] = [origin for inputs in rows for origin in _row_hashes(inputs)]
    _check_origins(origins, ("score", "calibration"), by_chance=BY_CHANCE)


def _check_origins(origins: Mapping[str, Sequence[Hashable]], alike: Collection[str], by_chance: float = 0.0) -> None:
    names = list(origins)
    for position, first in enumerate(names):
        first_origins = set(origins[first])
        for second in names[position + 1 :]:
            if first in alike and second in alike:
                continue
            shared = [number for number, origin in enumerate(origins[second]) if origin in first_origins]
            count = len(origins[second])
            if len(shared) > max(_expected(origins[first], count), by_chance * count, 2.0 if by_chance else 0.0):
                numbers = ", ".join(map(str, shared[:3]))
                more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
                raise UserError(
                    f"{first} and {second} share {len(shared)} of the {len(origins[second])} examples of {second} "
                    f"(numbers {numbers}{more} of {second}): they must be different data, or no figure means anything; "
                    "remove these examples from one of the two"
                )


def origins_of(data: Any) -> list[Hashable]:
    """Returns the origin of every item; two items of equal origin are the same example.

    The origin is: for rows of tensors, a hash of the inputs (the last tensor holds the labels); for items of a Subset
    or a concatenation, the origin in the data set behind it; for items of a data set with a list of files, the entry in
    the list; for all others, the data set and the item's number.
    """
    if isinstance(data, Subset):
        originals = origins_of(data.dataset)
        return [originals[int(index)] for index in data.indices]
    if isinstance(data, ConcatDataset):
        return [origin for part in data.datasets for origin in origins_of(part)]
    if isinstance(data, TensorDataset):
        return _row_hashes(data.tensors[:-1])
    for attribute in LISTS_OF_FILES:
        files = getattr(data, attribute, None)
        if isinstance(files, list) and len(files) == len(data):
            return [str(entry) for entry in files]
    return [(id(data), number) for number in range(len(data))]


def _expected(origins: Sequence[Hashable], count: int) -> float:
    """Returns how many of `count` examples may be found in `origins` by chance, where data repeat by nature.

    It is twice the expected number, by the share of `origins` that occur more than once, plus 3 standard deviations.
    """
    if not origins:
        return 0.0
    times = Counter(origins)
    twins = sum(number for number in times.values() if number > 1) / len(origins)
    return 0.0 if twins == 0 else 2 * twins * count + 3 * (twins * count + 1) ** 0.5


def _row_hashes(tensors: Sequence[Tensor]) -> list[Hashable]:
    """Returns a hash of 64 bits for each row of all tensors: the sum of its words times odd random numbers."""
    total = torch.zeros(len(tensors[0]), dtype=torch.int64)
    for number, tensor in enumerate(tensors):
        rows = tensor.detach().cpu().contiguous().reshape(len(tensor), -1)
        if not rows.shape[1]:
            continue
        width = -(-rows.shape[1] * rows.element_size() // 8)
        factors = torch.randint(2**62, (width,), generator=torch.Generator().manual_seed(number)) * 2 + 1
        step = max(1, CHUNK_BYTES // (8 * width))
        for first in range(0, len(rows), step):
            raw = rows[first : first + step].view(torch.uint8)
            words = torch.zeros(len(raw), 8 * width, dtype=torch.uint8)
            words[:, : raw.shape[1]] = raw
            total[first : first + step] += (words.view(torch.int64) * factors).sum(1)
    return list(total.tolist())
