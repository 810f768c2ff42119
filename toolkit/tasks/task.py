"""Holds the Task protocol, which describes what is compressed; stages know a model through this alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

from toolkit.measure.results import Quality, Timeline

# score: data to choose what to cut; calibration: data to fit repairs to; holdout: data to check repairs with.
# All three are parts of the training data that the task fixes.
Split = Literal["score", "calibration", "holdout", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Holds the inputs of a batch and its targets.

    inputs: the positional inputs of the model; their first dimension is the batch.
    targets: whatever the losses compare outputs with.
    """

    inputs: tuple[Tensor, ...]
    targets: Any


@dataclass(frozen=True)
class AlignmentOptions:
    """Says how the predictions of a student are compared with those of its teacher.

    temperature: what logits are divided by; the divergence is multiplied by its square.
    class_loss: the KL divergence between class logits: `bernoulli`, of each class on its own, as for sigmoid heads, or
        `softmax`, over all classes; None takes the task's own form.
    segment_loss: the loss of segments: `diou` is 1 - DIoU, `giou` is 1 - GIoU.
    """

    temperature: float = 1.0
    class_loss: Literal["bernoulli", "softmax"] | None = None
    segment_loss: Literal["diou", "giou"] = "diou"


@dataclass(frozen=True, eq=False)
class Strata:
    """Says which group each example of a split is in; every example is in one group.

    names: the names of the groups.
    members: int64 [N], the index of each example's group, in the order in which `Task.batches` yields the examples.
    """

    names: tuple[str, ...]
    members: Tensor


class Task(Protocol):
    """Is a model with its data and its metric, of which a higher value is better.

    A task may also have `other_inputs`, a sequence of further inputs, each a tuple of tensors of any batch size. They
    differ from the example inputs in length, or take other branches of the model. Every cut and drop is proved on them
    too. It may have the methods of `TellsCorrect` and of `HasStrata` as well.

    name: the name of the task, which recipes give.
    metric: the name of the metric.
    protected: names of modules whose widths must not change.
    """

    name: str
    metric: str
    protected: tuple[str, ...]

    def build_model(self) -> nn.Module:
        """Returns the unmodified architecture with untrained weights."""

    def load_baseline(self) -> nn.Module:
        """Returns the trained, unmodified model, in eval mode on the CPU."""

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns inputs of the right shapes for tracing and timing, the same on every call."""

    def num_examples(self, split: Split) -> int:
        """Returns how many examples, as the metric counts them (images, whole streams), a fixed split has."""

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields a fixed split once, always in the same order.

        limit: the number of examples to yield; None yields all. A larger limit begins with the examples and the batches
            of a smaller one.
        """

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields training batches without end, from a share of the training data; the seed fixes both."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the task's own training loss, a scalar: the mean over the batch."""

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """Returns how far the student's outputs are from the teacher's: scalars by name, 0 for equal outputs.

        The stage `align` has weights for the names `class` and `segment`; terms of other names have weight 1.
        """

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the metric on a split, or on its first `limit` examples, as `batches` yields them.

        It calls the model itself, `model(...)`, on the same batches every time, and leaves the model's mode and device
        as they were.
        """

    def timeline(self, model: nn.Module) -> Timeline | None:
        """Returns one test example to show in the report; None if there is nothing to show."""


@runtime_checkable
class TellsCorrect(Protocol):
    """Is what a task may offer besides, so that what depends on success can be asked of one example."""

    def correct(self, outputs: Any, targets: Any) -> Tensor:
        """Returns which examples of a batch the model's outputs are right about: bool [B], on the outputs' device.

        Outputs and targets are on one device.
        """


@runtime_checkable
class HasStrata(Protocol):
    """Is what a task may offer besides, so that results can be given for each kind of example."""

    def strata(self, split: Split) -> Strata:
        """Returns the groups of all examples of a split, such as those of one true class; models do not see them."""
