"""A task around any module, compared with itself: for tests of what a model is like, not of how good it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.hooks.tensors import tensors_in
from toolkit.measure.results import Quality
from toolkit.tasks.task import AlignmentOptions, Batch, Split

Inputs = tuple[Tensor, ...]


def images(size: int, side: int = 32) -> Inputs:
    return (torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(size)),)


def token_ids(size: int, length: int = 12, vocabulary: int = 50) -> Inputs:
    return (torch.randint(vocabulary, (size, length), generator=torch.Generator().manual_seed(size)),)


def first(outputs: Any) -> Tensor:
    """Returns the first floating tensor of a model's outputs."""
    return next(part for part in tensors_in(outputs) if part.is_floating_point())


class AnyTask:
    """The targets are the outputs of the model that `build` makes; `inputs` gives inputs for a number of examples."""

    metric = "closeness"
    protected: tuple[str, ...] = ()

    def __init__(self, build: Callable[[], nn.Module], inputs: Callable[[int], Inputs], name: str = "any") -> None:
        self.name, self.example_inputs, self._build = name, inputs, build
        self._dense = self.build_model().eval()

    def build_model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self._build()

    def load_baseline(self) -> nn.Module:
        model = self.build_model()
        model.load_state_dict(self._dense.state_dict())
        return model.eval()

    def num_examples(self, split: Split) -> int:
        return 4

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        for start in range(0, 4 if limit is None else min(4, limit), batch_size):
            drawn = self.example_inputs(4 + get_args(Split).index(split))  # other examples in every split
            inputs = tuple(part[:4][start : start + batch_size] for part in drawn)
            yield Batch(inputs, self._answer(inputs))

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        while True:
            inputs = self.example_inputs(batch_size)
            yield Batch(inputs, self._answer(inputs))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return functional.mse_loss(first(outputs), targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        return {"output": functional.mse_loss(first(student), first(teacher))}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        losses = [float(self.loss(model(*batch.inputs), batch.targets)) for batch in self.batches(split, 4)]
        return Quality(metric=self.metric, split=split, value=-sum(losses), num_examples=4)

    def timeline(self, model: nn.Module) -> None:
        return None

    @torch.no_grad()
    def _answer(self, inputs: Inputs) -> Tensor:
        return first(copy.deepcopy(self._dense)(*inputs))
