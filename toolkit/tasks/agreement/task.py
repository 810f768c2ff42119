"""Holds the task `zoo`: any model of a public zoo on made-up inputs, whose quality is the agreement with itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.base.errors import StageError, UserError
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import device_of, evaluating
from toolkit.hooks.tensors import tensors_in
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.task import AlignmentOptions, Batch, Split
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.inputs import example_inputs
from toolkit.zoo.random_baseline import build_random_baseline
from toolkit.zoo.settings import ZooModel
from toolkit.zoo.weights import load_weights

SEEDS: dict[Split, int] = {"score": 1, "calibration": 2, "holdout": 3, "validation": 4, "test": 5}

TRAINING_SEED = 6

TRAINING_EXAMPLES = 256

DENSE_BATCH = 8


class ZooTask:
    """Is a `Task` with the model of `config` and made-up examples, which are the same on every machine.

    A model's main output is the first floating tensor that it returns. The targets are the main outputs of the
    unmodified model, and the loss is the mean squared error to them. The quality is the mean over the examples of the
    cosine between output and target; from both, the mean target of the split is subtracted. It is 1.0 for equal
    outputs, and about 0 for outputs that do not depend on the input.
    """

    name = "zoo"
    metric = "agreement"
    protected: tuple[str, ...] = ()

    def __init__(self, config: ZooModel, folder: Path | None = None) -> None:
        """Builds and tries the model.

        folder: what a relative path of weights starts from; None stands for the current folder.

        Raises:
            UserError: the model cannot be built, does not run, or the weights do not fit it.
        """
        self.config = config
        self._known: dict[Split, tuple[tuple[Tensor, ...], Tensor]] = {}
        inputs = self.example_inputs(2)
        try:
            self._dense = self._build_dense(folder)
            outputs = self._answers(inputs)
        except (RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
            shapes = ", ".join(str(tuple(part.shape)) for part in inputs)
            raise UserError(
                f"{config.name} does not run on inputs of shape {shapes}: {error}; set input_size, or the model's "
                "own argument for it (image_size, img_size)"
            ) from error
        if not bool(outputs.isfinite().all()) or torch.equal(outputs[0], outputs[1]):
            raise UserError(f"{config.name} gives equal outputs for all inputs, or infinite ones; choose another model")

    def build_model(self) -> nn.Module:
        """Returns the model with random weights."""
        return build_zoo_model(self.config.name, self.config.arguments)

    def load_baseline(self) -> nn.Module:
        """Returns a copy of the unmodified model."""
        return copy_model(self._dense)

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns made-up inputs, batch first."""
        return self._inputs(batch_size, 0)

    def num_examples(self, split: Split) -> int:
        """Returns the number of examples, which is the same for every split."""
        return self.config.examples

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the examples of a split in order, with the unmodified model's main outputs as targets."""
        inputs, targets = self._split(split)
        end = len(targets) if limit is None else min(limit, len(targets))
        for first in range(0, end, batch_size):
            part = slice(first, min(first + batch_size, end))
            yield Batch(tuple(tensor[part] for tensor in inputs), targets[part])

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields random draws from a fixed pool of examples, which shares none with any split."""
        generator = torch.Generator().manual_seed(seed)
        pool = torch.randperm(TRAINING_EXAMPLES, generator=generator)[: max(1, round(share * TRAINING_EXAMPLES))]
        while True:
            drawn = pool[torch.randint(len(pool), (batch_size,), generator=generator)].tolist()
            rows = [self._inputs(1, TRAINING_SEED + place) for place in drawn]
            inputs = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
            yield Batch(inputs, self._answers(inputs))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the mean squared error of the main output."""
        return F.mse_loss(main_output(outputs), targets)

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """Returns `output`, the mean squared difference of the main outputs; the options have no effect."""
        return {"output": F.mse_loss(main_output(student), main_output(teacher))}

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the agreement on a split.

        Raises:
            StageError: the outputs are not finite numbers.
        """
        device = device_of(model)
        mean_target = self._split(split)[1].mean(0).flatten()
        cosines: list[Tensor] = []
        with evaluating(model):
            for batch in self.batches(split, DENSE_BATCH, limit=limit):
                output = main_output(model(*(part.to(device) for part in batch.inputs))).float().cpu()
                if not bool(output.isfinite().all()):
                    raise StageError(f"the model's outputs on split {split} are not finite numbers; it is broken")
                cosines.append(
                    F.cosine_similarity(output.flatten(1) - mean_target, batch.targets.flatten(1) - mean_target)
                )
        values = torch.cat(cosines)
        return Quality(metric=self.metric, split=split, value=float(values.mean()), num_examples=len(values))

    def timeline(self, model: nn.Module) -> Timeline | None:
        """Returns None: made-up inputs have no timeline."""
        return None

    def _inputs(self, count: int, seed: int) -> tuple[Tensor, ...]:
        return example_inputs(self.config.name, self.config.arguments, count, seed, self.config.input_size)

    def _split(self, split: Split) -> tuple[tuple[Tensor, ...], Tensor]:
        """Returns a split's inputs and the unmodified model's main outputs on them, which are computed once."""
        if split not in self._known:
            inputs = self._inputs(self.config.examples, SEEDS[split])
            places = range(0, self.config.examples, DENSE_BATCH)
            parts = [tuple(tensor[first : first + DENSE_BATCH] for tensor in inputs) for first in places]
            self._known[split] = inputs, torch.cat([self._answers(part) for part in parts])
        return self._known[split]

    @torch.no_grad()
    def _answers(self, inputs: tuple[Tensor, ...]) -> Tensor:
        return main_output(self._dense(*inputs)).float()

    def _build_dense(self, folder: Path | None) -> nn.Module:
        config = self.config
        if config.weights is None:
            return build_random_baseline(config.name, config.arguments, config.input_size)
        model = self.build_model()
        load_weights(model, (folder or Path()) / config.weights, config.weights_key)
        return model.eval()


def main_output(outputs: Any) -> Tensor:
    """Returns the first floating tensor of a model's outputs.

    Raises:
        StageError: the outputs hold none.
    """
    for tensor in tensors_in(outputs):
        if tensor.is_floating_point():
            return tensor
    raise StageError("the model returns no tensor of floating numbers, so nothing can be compared")


def make_zoo_task(config: ZooModel, folder: Path | None = None) -> ZooTask:
    """Returns the task `zoo` with the model that a recipe names."""
    return ZooTask(config, folder)
