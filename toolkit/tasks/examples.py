"""Makes batches of a classifier's data: of rows of tensors, or of items of a data set, whose last part is the label."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from toolkit.base.errors import UserError
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.trial import described, told, users_code
from toolkit.tasks.labels import class_labels
from toolkit.tasks.task import Batch

Examples = Dataset[Any] | Sequence[Tensor]

NUM_TRIED = 8  # items of a data set that are read before any work, half from its beginning and half from its end

ITEMS = "an item must be a tuple (inputs..., label)"


class ExampleSet:
    """Holds one split of the data.

    name: the name of the split in messages.
    all: the positions of all examples.
    classes: the number of classes, which labels are checked against; None until it is known.
    """

    def __init__(self, name: str, data: Examples) -> None:
        """Checks the form of the data.

        Raises:
            UserError: the data are empty, or nothing that batches can be made of.
        """
        self.name = name
        self.data: Dataset[Any] = data if isinstance(data, Dataset) else _rows(name, data)
        if not isinstance(self.data, Sized):
            raise UserError(f"{name} has no length; give tensors, or a dataset with __len__ and __getitem__")
        with users_code(f"the length of {name} cannot be told"):
            count = len(self.data)
        self.all = list(range(count))
        if not self.all:
            raise UserError(f"{name} is empty")
        self.classes: int | None = None

    def __len__(self) -> int:
        return len(self.all)

    def batch(self, places: Sequence[int]) -> Batch:
        """Returns the examples at these positions.

        Raises:
            UserError: an item cannot be read or has a wrong form, items do not fit into one batch, or a label is not
                one of a class.
        """
        if isinstance(self.data, TensorDataset):
            *inputs, labels = (tensor[list(places)] for tensor in self.data.tensors)
        else:
            *inputs, labels = self._collated(places)
        return Batch(tuple(inputs), class_labels(labels, self.name, self.classes))

    def check(self, *, repeats: bool) -> None:
        """Checks all labels of tensors, or reads a few items of a data set.

        repeats: whether an item must be the same when it is read again.

        Raises:
            UserError: as `batch`, or an item differs when it is read again.
        """
        if isinstance(self.data, TensorDataset):
            class_labels(self.data.tensors[-1], self.name, self.classes)
            return
        places = sorted({*self.all[: NUM_TRIED // 2], *self.all[-NUM_TRIED // 2 :]})
        batch = self.batch(places)
        if not repeats:
            return
        batch_again = self.batch(places)
        pairs = zip(
            tensors_in((batch.inputs, batch.targets)),
            tensors_in((batch_again.inputs, batch_again.targets)),
            strict=True,
        )
        if any(not torch.equal(*map(torch.nan_to_num, pair)) for pair in pairs):
            raise UserError(
                f"items of {self.name} are not the same when they are read again, so no two figures could be compared; "
                "give random augmentation as `augmented`, which only training reads"
            )

    def _collated(self, places: Sequence[int]) -> list[Any]:
        items = [self._item(place) for place in places]
        try:
            parts = list(default_collate([tuple(item) for item in items]))
        except Exception as error:  # default_collate and the items may raise anything
            raise UserError(self._why_no_batch(places, items, error)) from error
        for number, part in enumerate(parts[:-1]):
            if not isinstance(part, Tensor):
                raise UserError(
                    f"part {number} of the items of {self.name} is {described(items[0][number])}; {ITEMS}, whose "
                    "inputs are tensors or numbers"
                )
        return parts

    def _item(self, place: int) -> Sequence[Any]:
        with users_code(f"item {place} of {self.name} cannot be read"):
            item = self.data[place]
        if isinstance(item, (tuple, list)) and len(item) > 1:
            return item
        if isinstance(item, Tensor) or (isinstance(item, (tuple, list)) and len(item) == 1):
            raise UserError(f"item {place} of {self.name} is {described(item)}: its label is missing; {ITEMS}")
        wrap = ": wrap the data set in one that returns (item[...], item[...])" if isinstance(item, dict) else ""
        raise UserError(f"item {place} of {self.name} is {described(item)}; {ITEMS}{wrap}")

    def _why_no_batch(self, places: Sequence[int], items: Sequence[Sequence[Any]], error: Exception) -> str:
        """Returns in words which items do not fit into one batch."""
        for place, item in zip(places, items, strict=True):
            unlike = f"items {places[0]} and {place} of {self.name} do not fit into one batch"
            if len(item) != len(items[0]):
                return f"{unlike}: they have {len(items[0])} and {len(item)} parts; all must have as many"
            for number, (first_part, part) in enumerate(zip(items[0], item, strict=True)):
                kinds = getattr(first_part, "shape", type(first_part)), getattr(part, "shape", type(part))
                if kinds[0] != kinds[1]:
                    return (
                        f"{unlike}: part {number} is {described(first_part)} and {described(part)}; pad or crop them "
                        "to one size"
                    )
        parts = ", ".join(map(described, items[0]))
        return f"items of {self.name} cannot be made a batch of ({told(error)}): item {places[0]} is {parts}; {ITEMS}"


def _rows(name: str, tensors: Any) -> TensorDataset:
    if isinstance(tensors, (str, bytes, dict)) or not isinstance(tensors, Sequence):
        raise UserError(f"{name} is {described(tensors)}; give tensors (inputs..., labels), or a dataset")
    others = [part for part in tensors if not isinstance(part, Tensor)]
    if others:
        raise UserError(
            f"{name} must be inputs and labels, as tensors or as a dataset; it holds {described(others[0])}"
        )
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(shapes) < 2 or len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        raise UserError(f"{name} must be inputs and labels of one length; the shapes are {shapes}")
    return TensorDataset(*tensors)
