"""Tasks around nets of convolutions whose outputs repeat themselves in a known way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.any_task import AnyTask
from toolkit.base.console import Console
from toolkit.redundancy.measure import redundancy_of
from toolkit.redundancy.report import LayerRedundancy, RedundancyReport
from toolkit.tasks.task import Batch, Split

SEEDS: dict[str, int] = {"score": 1, "calibration": 2, "holdout": 3, "validation": 4, "test": 5}


class SignalTask(AnyTask):
    """Gives noise of the shape `shape` to one module; `make` turns the noise into the inputs."""

    def __init__(
        self,
        model: nn.Module,
        shape: tuple[int, ...],
        make: Callable[[Tensor], Tensor] = lambda noise: noise,
        examples: int = 24,
    ) -> None:
        self.shape, self.make, self.examples = shape, make, examples
        super().__init__(lambda: model, lambda size: (self.signals(size, 0),), name="signals")

    def signals(self, size: int, seed: int) -> Tensor:
        return self.make(torch.randn(size, *self.shape, generator=torch.Generator().manual_seed(seed)))

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        signals = self.signals(self.examples, SEEDS[split])[:limit]
        for part in signals.split(batch_size):
            yield Batch((part,), None)


def report_of(task: AnyTask, model: nn.Module, **options: Any) -> RedundancyReport:
    with torch.random.fork_rng(devices=[]):
        return redundancy_of(task, model, name="net", console=Console(io.StringIO()), **options)  # type: ignore[arg-type]


def only_layer(task: AnyTask, model: nn.Module, **options: Any) -> LayerRedundancy:
    (layer,) = report_of(task, model, **options).layers
    return layer


@torch.no_grad()
def planted(layer: nn.Module, groups: int = 1) -> nn.Module:
    """Returns a convolution after each of its odd channels was made a combination of the even ones of its group."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    bias.copy_(torch.randn(bias.shape, generator=generator))
    transposed = "Transpose" in type(layer).__name__
    of_outputs = weight.transpose(0, 1) if transposed else weight  # a view
    size = len(of_outputs) // groups
    for start in range(0, len(of_outputs), size):
        even, odd = slice(start, start + size, 2), slice(start + 1, start + size, 2)
        mix = torch.randn(size // 2, size // 2, generator=generator).tril()  # the first is a copy
        of_outputs[odd] = torch.einsum("ij,j...->i...", mix, of_outputs[even])
        bias[odd] = mix @ bias[even] + 1.0
    return layer
