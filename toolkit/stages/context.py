"""Defines what every stage is given besides the model, the task and its own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.hooks.paths import Path
from toolkit.hooks.routes import MOST_ALONE, each_alone
from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import StageDetail
from toolkit.stages.rounds import RoundStore
from toolkit.tasks.batches import batches_of
from toolkit.tasks.task import Batch, Split, Task
from toolkit.tasks.ways import paths_of

PARTIAL = "that of this model is partial: the run record lists the operators without a count under `macs.unknown`"

Settings_contra = TypeVar("Settings_contra", bound=StageSettings, contravariant=True)
Detail_co = TypeVar("Detail_co", bound=StageDetail, covariant=True)


@dataclass(frozen=True)
class StageContext:
    """Holds what a run gives to each of its stages.

    dense: unmodified, trained model: the teacher, and the reference of every ratio.
    dense_macs: multiply-adds of one example of `dense`, or None if the count is partial.
    count_macs: returns the multiply-adds of one example, or None if the count is partial.
    rounds: stores finished rounds, so that an interrupted stage can resume.
    smallest_batch: smallest number of examples that the model accepts; any larger number works too.
    running: number of examples in the batch that `batches` yielded last; empty before the first batch.
    """

    dense: nn.Module
    dense_macs: int | None
    count_macs: Callable[[nn.Module], int | None]
    device: torch.device
    seed: int
    console: Console
    rounds: RoundStore = field(default_factory=RoundStore)
    smallest_batch: int = 1
    running: list[int] = field(default_factory=list)

    def macs_ratio(self, model: nn.Module) -> float:
        """Returns the multiply-adds of `model` as a share of those of the unmodified model.

        Raises:
            StageError: one of the counts is partial.
        """
        ratio = self.known_macs_ratio(model)
        if ratio is None:
            raise StageError(f"a target in multiply-adds needs a full count, and {PARTIAL}")
        return ratio

    def known_macs_ratio(self, model: nn.Module) -> float | None:
        """Returns the share that `macs_ratio` returns, or None if one of the counts is partial."""
        if not self.dense_macs:
            return None
        macs = self.count_macs(model)
        return None if macs is None else macs / self.dense_macs

    def batches(self, task: Task, split: Split, batch_size: int = 16, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the batches of a split, which are the same at every call, on the device of the run.

        limit: number of leading examples to use; None uses all.

        Raises:
            StageError: the task fails, yields something else than batches, or yields none.
        """
        for batch in batches_of(task, split, batch_size, limit=limit):
            self.running[:] = [len(batch.inputs[0])]
            yield to_device(batch, self.device)

    def inputs(self, task: Task, split: Split) -> Iterator[tuple[Tensor, ...]]:
        """Returns an iterator over the inputs of the batches of a split."""
        return (batch.inputs for batch in self.batches(task, split))

    def varied_inputs(self, task: Task, *splits: Split) -> Iterator[tuple[Tensor, ...]]:
        """Yields the example inputs, single examples of the first split, and all batches of the splits.

        Layers that are given rows depending on values show on single examples, even where a split has one batch.
        """
        yield self.example_inputs(task)
        first = next(self.inputs(task, splits[0]))
        yield from each_alone(tuple(part[: MOST_ALONE * self.smallest_batch] for part in first), self.smallest_batch)
        for split in splits:
            yield from self.inputs(task, split)

    def other_paths(self, task: Task, model: nn.Module) -> tuple[Path, ...]:
        """Returns the ways to run the model beside eval mode on one example: training mode, and `other_inputs`.

        Raises:
            UserError: the model does not run on one of the `other_inputs` of the task.
        """
        return paths_of(task, model, self.device).taken[1:]

    def example_inputs(self, task: Task) -> tuple[Tensor, ...]:
        """Returns example inputs on the run's device: one example, or as many as the model needs."""
        return tuple(part.to(self.device) for part in task.example_inputs(self.smallest_batch))


class Apply(Protocol[Settings_contra, Detail_co]):
    """Changes `model` in place or returns another one, with the same output shapes, mode, device and dtype.

    Raises:
        StageError: the target cannot be met; a near miss is never accepted silently.
    """

    def __call__(
        self, model: nn.Module, task: Task, config: Settings_contra, context: StageContext
    ) -> tuple[nn.Module, Detail_co]: ...


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Returns the batch with inputs and targets on the device."""
    return Batch(tuple(part.to(device) for part in batch.inputs), _move(batch.targets, device))


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(_move(part, device) for part in value)
    if isinstance(value, dict):
        return {key: _move(part, device) for key, part in value.items()}
    return value
