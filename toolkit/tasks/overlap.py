"""Finds examples that two splits share: rows of tensors by content, items of data sets by what they are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from toolkit.base.errors import UserError

CHUNK_BYTES = 2**26  # of rows that are hashed at a time

# Lists that data sets of torchvision and others keep their files in, one entry per item.
LISTS_OF_FILES = ("samples", "imgs")


def check_apart(splits: Mapping[str, Any], alike: Collection[str] = ()) -> None:
    """Checks that no two splits share an example.

    splits: data sets by their name.
    alike: names of splits that are made of the same examples.

    Rows that repeat within the first of two splits as often as they are shared are taken for what such data are like.

    Raises:
        UserError: two splits share examples.
    """
    origins = {name: origins_of(data) for name, data in splits.items()}
    names = list(splits)
    for place, first in enumerate(names):
        known = set(origins[first])
        for second in names[place + 1 :]:
            if first in alike and second in alike:
                continue
            shared = [where for where, origin in enumerate(origins[second]) if origin in known]
            if len(shared) > _expected(origins[first], len(origins[second])):
                where = ", ".join(map(str, shared[:3]))
                more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
                raise UserError(
                    f"{first} and {second} share {len(shared)} of the {len(origins[second])} examples of {second} "
                    f"(numbers {where}{more} of {second}): they must be different data, or no figure means anything; "
                    "take them out of one of the two"
                )


def origins_of(data: Any) -> list[Hashable]:
    """Returns for every item what it is made of: equal where two items are the same example.

    Rows of tensors go by the content of the inputs (the last tensor holds the labels), items of a Subset or a
    concatenation by those of the data set behind it, items of a data set with a list of files by the entry there, and
    all others by the data set and the number.
    """
    if isinstance(data, Subset):
        behind = origins_of(data.dataset)
        return [behind[int(index)] for index in data.indices]
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
    """How many of `count` examples may be found among `origins` by chance, where examples repeat by nature."""
    times = Counter(origins)
    twins = sum(number for number in times.values() if number > 1) / len(origins)
    return 0.0 if twins == 0 else 2 * twins * count + 3 * (twins * count + 1) ** 0.5


def _row_hashes(tensors: Sequence[Tensor]) -> list[Hashable]:
    """64 bits per row, of all tensors together: sums of products of the row's words with odd random numbers."""
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
