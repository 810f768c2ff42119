"""What all tasks of classification share: loss, alignment and accuracy from logits, whatever the data are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.base.errors import StageError, UserError
from toolkit.hooks.modes import evaluating
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.task import AlignmentOptions, Batch, Split

EVALUATION_BATCH = 64

RESAMPLES = 1000


class Classifier(ABC):
    """The part of a `Task` that follows from logits [B, classes], given alone or as `.logits` (transformers)."""

    metric = "accuracy"

    @abstractmethod
    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """As in `Task`; the targets are the labels [B]."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        return functional.cross_entropy(_logits(outputs), targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """`class`: the KL divergence of the options, summed over the classes, mean over the batch."""
        new, old = _logits(student), _logits(teacher)
        if options.class_loss == "bernoulli":
            return {"class": bernoulli_divergence(new, old, options.temperature).sum(-1).mean()}
        return {"class": softmax_divergence(new, old, options.temperature).mean()}

    @torch.no_grad()
    def hits(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Tensor:
        """Returns for each example of the split, in order, whether the highest logit is that of its label: bool [N].

        The model's modes and device are left as they were.

        Raises:
            StageError: the outputs are not finite numbers, of which no figure can be made.
        """
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        found: list[Tensor] = []
        with evaluating(model):
            for batch in self.batches(split, EVALUATION_BATCH, limit=limit):
                logits = _logits(model(*(part.to(device) for part in batch.inputs))).cpu()
                if not bool(logits.isfinite().all()):
                    raise StageError(f"the model's outputs on split {split} are not finite numbers; it is broken")
                found.append(logits.argmax(-1) == batch.targets)
        return torch.cat(found)

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Accuracy. Raises StageError: as `hits`."""
        correct = self.hits(model, split, limit=limit)
        count, value = len(correct), float(correct.double().mean())
        low, high = np.percentile(np.random.default_rng(0).binomial(count, value, RESAMPLES) / count, [2.5, 97.5])
        interval = (float(low), float(high))  # drawing hits with replacement is drawing from a binomial distribution
        return Quality(metric=self.metric, split=split, value=value, num_examples=count, interval=interval)

    def timeline(self, model: nn.Module) -> Timeline | None:
        return None


def _logits(outputs: Any) -> Tensor:
    found = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise UserError(
            "a classifier's output must be logits [batch, classes], alone or as `.logits`; "
            f"this model's is {tuple(found.shape) if isinstance(found, Tensor) else type(outputs).__name__}"
        )
    return found
