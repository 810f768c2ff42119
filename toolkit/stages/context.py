"""What every stage is given besides the model, the task and its own configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import StageDetail
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.task import Batch, Split, Task

Settings_contra = TypeVar("Settings_contra", bound=StageSettings, contravariant=True)
Detail_co = TypeVar("Detail_co", bound=StageDetail, covariant=True)


@dataclass(frozen=True)
class StageContext:
    """`dense` is the run's unmodified, trained model: the teacher, and what every ratio refers to.

    running: the number of examples in the batch that `batches` gave last; nothing before the first one.
    """

    dense: nn.Module
    dense_macs: int
    count_macs: Callable[[nn.Module], int]
    device: torch.device
    seed: int
    console: Console
    rounds: RoundStore = field(
        default_factory=RoundStore
    )  # where a stage of several rounds keeps those that are finished
    running: list[int] = field(default_factory=list)

    def macs_ratio(self, model: nn.Module) -> float:
        return self.count_macs(model) / self.dense_macs

    def batches(self, task: Task, split: Split, batch_size: int = 16, *, limit: int | None = None) -> Iterator[Batch]:
        """A fixed split's batches, or those of its first `limit` examples, with their inputs on the run's device."""
        is_empty = True
        for batch in task.batches(split, batch_size, limit=limit):
            is_empty = False
            self.running[:] = [len(batch.inputs[0])]
            yield to_device(batch, self.device)
        if is_empty:
            raise StageError(f"task {task.name!r} gives no batch for split {split!r}, which this stage needs")

    def inputs(self, task: Task, split: Split) -> Iterator[tuple[Tensor, ...]]:
        return (batch.inputs for batch in self.batches(task, split))

    def example_inputs(self, task: Task) -> tuple[Tensor, ...]:
        return tuple(part.to(self.device) for part in task.example_inputs(1))


class Apply(Protocol[Settings_contra, Detail_co]):
    """Changes `model`, or returns another one; keeps output shape, mode, device and dtype.

    Raises:
        StageError: the target cannot be met; never a silent near miss.
    """

    def __call__(
        self, model: nn.Module, task: Task, config: Settings_contra, context: StageContext
    ) -> tuple[nn.Module, Detail_co]: ...


def to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(tuple(part.to(device) for part in batch.inputs), _move(batch.targets, device))


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_move(part, device) for part in value)
    if isinstance(value, dict):
        return {key: _move(part, device) for key, part in value.items()}
    return value
