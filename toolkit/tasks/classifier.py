"""What all tasks of classification share: loss, alignment and accuracy from logits, whatever the data are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.base.errors import StageError, UserError
from toolkit.hooks.modes import evaluating
from toolkit.hooks.trial import described
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.task import AlignmentOptions, Batch, Split

EVALUATION_BATCH = 64

RESAMPLES = 1000

BINARY_CLASSES = 2  # that one logit tells apart


class Classifier(ABC):
    """The part of a `Task` that follows from logits [B, classes], given alone or as `.logits` (transformers)."""

    metric = "accuracy"

    @abstractmethod
    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """As in `Task`; the targets are the labels [B]."""

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Cross-entropy; binary cross-entropy of class 1 where there is one logit."""
        logits = logits_of(outputs)
        if logits.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits.dtype))
        return functional.cross_entropy(logits, targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """`class`: the KL divergence of the options, summed over the classes, mean over the batch.

        The form bernoulli where there is one logit: it is the softmax over both classes.
        """
        new, old = logits_of(student), logits_of(teacher)
        if options.class_loss == "bernoulli" or new.shape[1] == 1:
            return {"class": bernoulli_divergence(new, old, options.temperature).sum(-1).mean()}
        return {"class": softmax_divergence(new, old, options.temperature).mean()}

    @torch.no_grad()
    def hits(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Tensor:
        """Returns for each example of the split, in order, whether the highest logit is that of its label: bool [N].

        One logit is that of class 1, against 0. The model's modes and device are left as they were.

        Raises:
            StageError: the outputs are not finite numbers, or labels are not one per example: no figure can be made.
        """
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        found: list[Tensor] = []
        with evaluating(model):
            for batch in self.batches(split, EVALUATION_BATCH, limit=limit):
                logits = logits_of(model(*(part.to(device) for part in batch.inputs)), len(batch.targets)).cpu()
                if not bool(logits.isfinite().all()):
                    raise StageError(f"the model's outputs on split {split} are not finite numbers; it is broken")
                if batch.targets.shape != logits.shape[:1]:
                    raise StageError(
                        f"labels of split {split} are {described(batch.targets)}; there must be one per example, shape "
                        f"[{len(logits)}]"
                    )
                found.append(classes_of(logits) == batch.targets)
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


def classes_of(logits: Tensor) -> Tensor:
    """Returns the class of each example [B], from logits [B, classes] or, of class 1 alone, [B, 1]."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(-1)


def logits_of(outputs: Any, num_examples: int | None = None) -> Tensor:
    """Returns the logits [B, classes] among a model's outputs; [B] is taken for one logit per example.

    Raises:
        UserError: there are none, or not a row per example.
    """
    found = outputs if isinstance(outputs, Tensor) else getattr(outputs, "logits", None)
    if isinstance(outputs, Mapping):
        found = outputs.get("logits", found)
    if isinstance(found, Tensor) and found.ndim == 1 and num_examples in (None, len(found)):
        found = found[:, None]
    is_matrix = isinstance(found, Tensor) and found.ndim == 2 and found.shape[1] > 0 and found.is_floating_point()
    if isinstance(found, Tensor) and is_matrix and num_examples in (None, len(found)):
        return found
    rows = "" if num_examples is None else f" for {num_examples} examples"
    raise UserError(
        "a classifier's output must be logits [batch, classes], alone or as `.logits`; "
        f"this model's is {described(outputs if found is None else found)}{rows}"
    )
