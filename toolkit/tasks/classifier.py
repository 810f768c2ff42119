"""Holds what all tasks of classification share: loss, alignment and accuracy, computed from logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.base.errors import StageError, UserError
from toolkit.hooks.modes import device_of, evaluating
from toolkit.hooks.trial import described
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.predictions import Predictions
from toolkit.tasks.task import AlignmentOptions, Batch, Split

EVALUATION_BATCH = 64

RESAMPLES = 1000

BINARY_CLASSES = 2  # the number of classes of a model with one logit


class Classifier(ABC):
    """Implements the part of a `Task` that needs only logits [B, classes], given alone or as `.logits`."""

    metric = "accuracy"

    @abstractmethod
    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the batches of a split, as in `Task`; the targets are the labels [B]."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the cross-entropy; for a model of one logit, the binary cross-entropy of class 1."""
        logits = logits_of(outputs)
        if logits.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits.dtype))
        return functional.cross_entropy(logits, targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """Returns `class`, the KL divergence of the options, summed over the classes and averaged over the batch.

        With one logit its form is always bernoulli, which equals the softmax form over both classes.
        """
        new, old = logits_of(student), logits_of(teacher)
        if options.class_loss == "bernoulli" or new.shape[1] == 1:
            return {"class": bernoulli_divergence(new, old, options.temperature).sum(-1).mean()}
        return {"class": softmax_divergence(new, old, options.temperature).mean()}

    def correct(self, outputs: Any, targets: Any) -> Tensor:
        """Returns which examples are classified as their labels say: bool [B]."""
        is_right: Tensor = classes_of(logits_of(outputs)) == targets
        return is_right

    @torch.no_grad()
    def hits(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Tensor:
        """Returns whether each example of a split, in order, is classified as its label says: bool [N].

        The model's modes and device are left as they were.

        Raises:
            StageError: the outputs are not finite numbers, or there is not one label per example.
        """
        found = self._logits(model, split, limit)
        return torch.cat([self.correct(logits, targets) for logits, targets in found])

    @torch.no_grad()
    def predictions(self, model: nn.Module, split: Split) -> Predictions:
        """Returns one row per example of a split, in order: number, label, predicted class and its probability.

        Raises:
            StageError: as `hits`.
        """
        rows: list[tuple[int, int, int, float]] = []
        for logits, targets in self._logits(model, split):
            both = functional.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits  # class 0 has logit 0
            scores, classes = both.softmax(-1).max(-1).values, classes_of(logits)
            numbers = range(len(rows), len(rows) + len(targets))
            rows += zip(numbers, targets.tolist(), classes.tolist(), scores.tolist(), strict=True)
        return Predictions(("example", "label", "predicted", "probability"), tuple(rows))

    def _logits(self, model: nn.Module, split: Split, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields logits and labels of a split, batch after batch, on the CPU, with the model in eval mode."""
        device, first = device_of(model), 0
        with evaluating(model):
            for batch in self.batches(split, EVALUATION_BATCH, limit=limit):
                logits = logits_of(model(*(part.to(device) for part in batch.inputs)), len(batch.targets)).cpu()
                check_finite(logits, batch, split, first)
                if batch.targets.shape != logits.shape[:1]:
                    raise StageError(
                        f"labels of split {split} are {described(batch.targets)}; there must be one per example, shape "
                        f"[{len(logits)}]"
                    )
                first += len(logits)
                yield logits, batch.targets

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the accuracy with its 95 % bootstrap interval.

        Raises:
            StageError: as `hits`.
        """
        return share_of(self.hits(model, split, limit=limit), self.metric, split)

    def timeline(self, model: nn.Module) -> Timeline | None:
        """Returns None: a classifier has no timeline."""
        return None


def share_of(correct: Tensor, metric: str, split: Split, details: Mapping[str, float] | None = None) -> Quality:
    """Returns the share of the examples that are correct (bool [N]), with its 95 % bootstrap interval."""
    count, value = len(correct), float(correct.double().mean())
    low, high = np.percentile(np.random.default_rng(0).binomial(count, value, RESAMPLES) / count, [2.5, 97.5])
    interval = (float(low), float(high))  # drawing hits with replacement is drawing from a binomial distribution
    return Quality(
        metric=metric, split=split, value=value, num_examples=count, interval=interval, details=dict(details or {})
    )


def check_finite(logits: Tensor, batch: Batch, split: Split, first: int) -> None:
    """Checks the logits [B, classes] of a batch, whose first example has the number `first` in its split.

    Raises:
        StageError: they are not all finite numbers.
    """
    if not bool(logits.isfinite().all()):
        number = first + int((~logits.isfinite()).any(1).nonzero()[0])
        raise StageError(f"the model's outputs on split {split} are not finite numbers: {_why(batch, number)}")


def _why(batch: Batch, number: int) -> str:
    """Returns in words why outputs are not finite; `number` is that of the first such example in its split."""
    if all(bool(part.isfinite().all()) for part in batch.inputs):
        return f"the model is broken (example {number})"
    return f"inputs near example {number} are NaN or infinite; leave such examples out, or fill them in"


def classes_of(logits: Tensor) -> Tensor:
    """Returns the class of each example [B], from logits [B, classes], or [B, 1] of class 1 against class 0."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(-1)


def logits_of(outputs: Any, num_examples: int | None = None) -> Tensor:
    """Returns the logits [B, classes] in a model's outputs; outputs [B] count as one logit per example.

    num_examples: the batch size; None if any number of rows will do.

    Raises:
        UserError: there are no logits, or there is not one row per example.
    """
    logits = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if isinstance(outputs, Mapping):
        logits = outputs.get("logits", logits)
    if isinstance(logits, Tensor) and logits.ndim == 1 and num_examples in (None, len(logits)):
        logits = logits[:, None]
    is_matrix = isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] > 0 and logits.is_floating_point()
    if isinstance(logits, Tensor) and is_matrix and num_examples in (None, len(logits)):
        return logits
    rows = "" if num_examples is None else f" for {num_examples} examples"
    raise UserError(
        "a classifier's output must be logits [batch, classes], alone or as `.logits`; "
        f"this model's is {described(outputs if logits is None else logits)}{rows}"
    )
