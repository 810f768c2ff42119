"""Holds the task `images`: pictures of one's own, and a trained classifier of timm or torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import Fault, RecipeError, UserError
from toolkit.hooks.modes import device_of, evaluating
from toolkit.hooks.trial import try_model
from toolkit.measure.results import Quality
from toolkit.tasks.classifier import EVALUATION_BATCH, Classifier, check_finite, classes_of, logits_of
from toolkit.tasks.images.look import look, num_classes_of
from toolkit.tasks.images.reading import Reader
from toolkit.tasks.images.scores import macro_f1
from toolkit.tasks.images.settings import MACRO_F1, NAME, TOP_5, ImageSettings
from toolkit.tasks.task import Batch, Split
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.inputs import example_inputs
from toolkit.zoo.weights import load_weights

TOP = 5


class ImageTask(Classifier):
    """Is a `Task` of the pictures and the model that settings name.

    Only training batches are augmented, so that no split on which anything is chosen or measured is random. Example
    inputs are made up, so that a saved model holds no picture.
    """

    name = NAME
    protected: tuple[str, ...] = ()

    def __init__(self, settings: ImageSettings, folder: Path) -> None:
        """Looks at the pictures and the weights, and tries the model.

        folder: what relative paths in the settings start from.

        Raises:
            RecipeError: pictures or weights have faults; the message holds all of them.
            UserError: the model does not run on pictures of this size, or gives no logits.
        """
        self.settings, self._folder, self.metric = settings, folder, settings.metric
        seen = look(settings, folder, opens_many=False)
        if seen.faults:
            raise RecipeError([Fault(("task", *place), message) for place, message in seen.faults])
        assert seen.divided is not None and seen.preparation is not None
        self._divided, self._reader = seen.divided, Reader(seen.preparation, settings.workers)
        model = self.load_baseline()
        logits = logits_of(try_model(model, self.example_inputs(2), settings.model.name), 2)
        if logits.shape[1] != num_classes_of(settings.model, model):
            raise UserError(f"{settings.model.name} gives {logits.shape[1]} logits, and not one for each class")

    def build_model(self) -> nn.Module:
        """Returns the model with random weights."""
        return build_zoo_model(self.settings.model.name, self.settings.model.arguments)

    def load_baseline(self) -> nn.Module:
        """Returns the model with its trained weights, in eval mode."""
        model, chosen = self.build_model(), self.settings.model
        load_weights(model, self._folder / chosen.weights, chosen.weights_key)
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns made-up pictures of the right size and scale."""
        chosen = self.settings.model
        return example_inputs(chosen.name, chosen.arguments, batch_size, input_size=self.settings.size)

    def num_examples(self, split: Split) -> int:
        """Returns the number of pictures in a split."""
        return len(self._divided.fixed[split])

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the pictures of a split in a fixed order, without augmentation."""
        return self._reader.fixed(self._divided.fixed[split], batch_size, limit)

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields shuffled, augmented epochs without end; an incomplete last batch is left out."""
        return self._reader.training(self._divided.train, batch_size, seed, share)

    def correct(self, outputs: Any, targets: Any) -> Tensor:
        """Returns which pictures are classified as their labels say, for the top-5 accuracy among the first five."""
        if self.metric != TOP_5:
            return super().correct(outputs, targets)
        is_right: Tensor = (logits_of(outputs).topk(TOP, dim=1).indices == targets[:, None]).any(1)
        return is_right

    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the metric of the settings with its 95 % bootstrap interval.

        Raises:
            StageError: the outputs are not finite numbers.
        """
        if self.metric != MACRO_F1:
            return super().evaluate(model, split, limit=limit)
        guesses = self._guesses(model, split, limit)
        truth = self._divided.fixed[split].labels[: len(guesses)]
        value, interval = macro_f1(truth, guesses.numpy(), len(self._divided.classes))
        return Quality(metric=self.metric, split=split, value=value, num_examples=len(guesses), interval=interval)

    @torch.no_grad()
    def _guesses(self, model: nn.Module, split: Split, limit: int | None) -> Tensor:
        """Returns the class that the model gives to each picture of a split: int64 [N]."""
        device = device_of(model)
        guesses: list[Tensor] = []
        with evaluating(model):
            for batch in self.batches(split, EVALUATION_BATCH, limit=limit):
                logits = logits_of(model(*(part.to(device) for part in batch.inputs)), len(batch.targets)).cpu()
                check_finite(logits, batch, split, sum(map(len, guesses)))
                guesses.append(classes_of(logits))
        return torch.cat(guesses)


def make_image_task(settings: ImageSettings, folder: Path | None = None) -> ImageTask:
    """Returns the task of the pictures and the model that a recipe names."""
    return ImageTask(settings, folder or Path())
