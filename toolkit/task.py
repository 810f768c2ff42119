"""The Task protocol: the only description of "what is being compressed". Stages know a model through this alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from toolkit.record import Quality, Timeline

# score: choosing what to cut; calibration: closed-form repair; holdout: its error on data it was not fitted to.
# All three are training data, fixed by the task.
Split = Literal["score", "calibration", "holdout", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Positional `inputs` of the model (first dimension is the batch), and whatever the losses compare with."""

    inputs: tuple[Tensor, ...]
    targets: Any


class Task(Protocol):
    """A model, its data and its metric (higher is better)."""

    name: str
    metric: str
    protected: tuple[str, ...]  # module names whose widths may not change

    def build_model(self) -> nn.Module:
        """The unmodified architecture, with untrained weights."""

    def load_baseline(self) -> nn.Module:
        """The trained, unmodified model, in eval mode on the CPU."""

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes for tracing and timing; the same on every call."""

    def batches(self, split: Split, batch_size: int) -> Iterator[Batch]:
        """One pass over a fixed split, always in the same order."""

    def train_batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless training batches, fixed by the seed."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The task's own training loss, a scalar: the mean over the batch."""

    def alignment(self, student: Any, teacher: Any) -> Tensor:
        """How far the student's predictions are from the teacher's, a scalar that is 0 when they are equal."""

    def evaluate(self, model: nn.Module, split: Split) -> Quality:
        """The metric on a split. The model's mode and device are left as they were."""

    def timeline(self, model: nn.Module) -> Timeline | None:
        """One test example to show in the report, or None where there is nothing to show."""
