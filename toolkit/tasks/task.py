"""The Task protocol: the only description of "what is being compressed". Stages know a model through this alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from toolkit.measure.results import Quality, Timeline

# score: choosing what to cut; calibration: closed-form repair; holdout: its error on data it was not fitted to.
# All three are training data, fixed by the task.
Split = Literal["score", "calibration", "holdout", "validation", "test"]


@dataclass(frozen=True)
class Batch:
    """Positional `inputs` of the model (first dimension is the batch), and whatever the losses compare with."""

    inputs: tuple[Tensor, ...]
    targets: Any


@dataclass(frozen=True)
class AlignmentOptions:
    """How predictions are compared.

    `class_loss` is for class logits: a KL divergence per class (bernoulli, right for sigmoid heads) or over the classes
    (softmax); None is the task's own form. `segment_loss` is for segments: 1 - DIoU, or 1 - GIoU.
    """

    temperature: float = 1.0  # logits are divided by it, the divergence is multiplied by its square
    class_loss: Literal["bernoulli", "softmax"] | None = None
    segment_loss: Literal["diou", "giou"] = "diou"


class Task(Protocol):
    """A model, its data and its metric (higher is better).

    A task may also have `other_inputs`, a sequence of inputs of any batch size, of other lengths or that take other
    branches of the model than the example inputs: every cut and every drop is proved on them too.
    """

    name: str
    metric: str
    protected: tuple[str, ...]  # module names whose widths may not change

    def build_model(self) -> nn.Module:
        """The unmodified architecture, with untrained weights."""

    def load_baseline(self) -> nn.Module:
        """The trained, unmodified model, in eval mode on the CPU."""

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes for tracing and timing; the same on every call."""

    def num_examples(self, split: Split) -> int:
        """How many examples, in the sense of the metric (images, whole streams), a fixed split has."""

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """One pass over a fixed split, always in the same order; `limit`: over that many examples of it only.

        The examples and batches of a smaller limit come first in those of a larger one.
        """

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Endless training batches, fixed by the seed; from that share of the training data, also fixed by it."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The task's own training loss, a scalar: the mean over the batch."""

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """How far the student's outputs are from the teacher's: scalars by name, each 0 when the outputs are equal.

        `class` and `segment` are the names that the align stage has weights for; others count once.
        """

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """The metric on a split, or on the first `limit` examples of it, as for `batches`.

        Calls the model itself, `model(...)`, over the same batches every time. The model's mode and device are left
        as they were.
        """

    def timeline(self, model: nn.Module) -> Timeline | None:
        """One test example to show in the report, or None where there is nothing to show."""
