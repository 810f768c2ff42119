"""A ready task for a classifier of your own: a model, data, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset, default_collate

from toolkit.base.errors import UserError
from toolkit.hooks.state import load_state, versions_of
from toolkit.tasks.classifier import Classifier
from toolkit.tasks.task import Batch, Split

Examples = Dataset[Any] | Sequence[Tensor]

FROM_TRAINING: tuple[Split, ...] = ("score", "calibration", "holdout")

MOST_FIXED_EXAMPLES = 512  # of each of those, unless told


class ClassificationTask(Classifier):
    """A `Task` around any module that gives logits [B, classes], or an object with such `logits` (transformers).

    `build_model` builds the architecture, `trained` are its trained weights or a trained model. Data are tensors
    (inputs..., labels), or datasets whose items are (inputs..., label), the same at every reading. `augmented` are the
    same training examples with random augmentation, read by training alone.

    The fixed splits for scoring, calibration and holdout are disjoint draws of `fixed_examples` each from `train`,
    by `seed`; validation and test are only measured on. `other_inputs` are as in `Task`.
    """

    def __init__(
        self,
        build_model: Callable[[], nn.Module],
        trained: nn.Module | Mapping[str, Tensor],
        *,
        train: Examples,
        validation: Examples,
        test: Examples,
        augmented: Examples | None = None,
        name: str = "classification",
        protected: tuple[str, ...] = (),
        fixed_examples: int | None = None,
        seed: int = 0,
        other_inputs: Sequence[tuple[Tensor, ...]] = (),
    ) -> None:
        """Raises UserError: the weights do not fit the architecture, or the data cannot be split as asked."""
        self.name, self.protected, self.build_model = name, protected, build_model
        self.other_inputs = tuple(other_inputs)
        if train is test or train is validation or validation is test:
            raise UserError("train, validation and test must be different data: no figure would mean anything")
        weights = trained.state_dict() if isinstance(trained, nn.Module) else trained
        self._weights = {key: value.detach().cpu().clone() for key, value in weights.items()}
        self._versions = versions_of(weights)
        self._train = _Examples("train", train)
        self._augmented = self._train if augmented is None else _Examples("augmented", augmented)
        if len(self._augmented) != len(self._train):
            raise UserError(f"augmented has {len(self._augmented)} examples, train {len(self._train)}: they must match")
        measured: dict[Split, _Examples] = {
            "validation": _Examples("validation", validation),
            "test": _Examples("test", test),
        }
        count = min(MOST_FIXED_EXAMPLES, len(self._train) // 3) if fixed_examples is None else fixed_examples
        self._splits = _draw(self._train, count, seed) | {split: (own, own.all) for split, own in measured.items()}
        self.load_baseline()

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        try:
            load_state(model, self._weights, self._versions)
        except RuntimeError as error:
            raise UserError(f"the trained weights do not fit what build_model builds: {error}") from error
        return model.cpu().eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Real examples, those of the scoring split, over again where there are too few."""
        examples, places = self._splits["score"]
        return examples.batch([places[number % len(places)] for number in range(batch_size)]).inputs

    def num_examples(self, split: Split) -> int:
        return len(self._splits[split][1])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        examples, places = self._splits[split]
        places = places[:limit]
        for first in range(0, len(places), batch_size):
            yield examples.batch(places[first : first + batch_size])

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Epoch after epoch, shuffled; what is left over of an epoch is not used, as batch normalisation wants it."""
        generator = torch.Generator().manual_seed(seed)
        total = len(self._augmented)
        places = torch.randperm(total, generator=generator)[: max(1, round(share * total))]
        while True:
            shuffled = places[torch.randperm(len(places), generator=generator)].tolist()
            for first in range(0, max(1, len(places) - batch_size + 1), batch_size):
                yield self._augmented.batch(shuffled[first : first + batch_size])


class _Examples:
    """Rows of tensors, or items of a dataset, as batches; the last part of each is the label."""

    def __init__(self, name: str, data: Examples) -> None:
        self.data: Dataset[Any] = data if isinstance(data, Dataset) else _rows(name, data)
        if not isinstance(self.data, Sized):
            raise UserError(f"{name} has no length; give tensors, or a dataset with __len__ and __getitem__")
        self.all = list(range(len(self.data)))
        if not self.all:
            raise UserError(f"{name} is empty")

    def __len__(self) -> int:
        return len(self.all)

    def batch(self, places: Sequence[int]) -> Batch:
        if isinstance(self.data, TensorDataset):
            *inputs, labels = (tensor[list(places)] for tensor in self.data.tensors)
        else:
            *inputs, labels = default_collate([self.data[place] for place in places])
        return Batch(tuple(inputs), labels)


def _rows(name: str, tensors: Sequence[Tensor]) -> TensorDataset:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(shapes) < 2 or len({shape[:1] for shape in shapes}) != 1:
        raise UserError(f"{name} must be inputs and labels of one length; the shapes are {shapes}")
    return TensorDataset(*tensors)


def _draw(train: _Examples, count: int, seed: int) -> dict[Split, tuple[_Examples, list[int]]]:
    if count < 1 or count * len(FROM_TRAINING) > len(train):
        raise UserError(
            f"fixed_examples is {count}, but {', '.join(FROM_TRAINING)} are disjoint parts of train, which has "
            f"{len(train)} examples: choose 1 to {len(train) // len(FROM_TRAINING)}"
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    return {split: (train, order[part * count : (part + 1) * count]) for part, split in enumerate(FROM_TRAINING)}
