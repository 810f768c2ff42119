"""Holds the task `moving-digits`, on which it can be seen what an input needs: a still clip shows one frame 16 times.

Score, calibration and holdout are clips of the training digits (each of a third of them) and of the training parts of
the photographs; validation and test have digits of other writers and other parts of the photographs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.base.errors import UserError
from toolkit.hooks.modes import device_of, evaluating
from toolkit.measure.results import Quality, Timeline
from toolkit.tasks.baseline import read_baseline
from toolkit.tasks.classifier import EVALUATION_BATCH, check_finite, share_of
from toolkit.tasks.divergence import bernoulli_divergence, softmax_divergence
from toolkit.tasks.moving_digits.clips import MOTIONS, Clips, make_clips
from toolkit.tasks.moving_digits.model import MovingDigitsNet
from toolkit.tasks.moving_digits.sources import material_of, training_material
from toolkit.tasks.task import AlignmentOptions, Batch, Split, Strata

BASELINE = Path(__file__).parent / "baseline"

SIZES: Mapping[Split, int] = {"score": 512, "calibration": 512, "holdout": 512, "validation": 1000, "test": 2000}

SEEDS: Mapping[Split, int] = {"score": 301, "calibration": 302, "holdout": 303, "validation": 304, "test": 305}

MEAN, DEVIATION = 0.25, 0.2  # about those of the training clips


class MovingDigitsTask:
    """Is a `Task` of two classifications at once; an example is right where both are.

    Inputs are clips, float32 [B, 1, 16, 32, 32]. Outputs are the logits of the digit [B, 10] and of the motion [B, 8].
    Targets are int64 [B, 2]: the digit, and the index of the motion in `MOTIONS`.
    """

    name = "moving-digits"
    metric = "joint accuracy"
    protected: tuple[str, ...] = ()

    def __init__(self, sizes: Mapping[Split, int] = SIZES, baseline: Path = BASELINE) -> None:
        """Names the data and the trained weights.

        sizes: the number of clips in each split.
        baseline: the folder of the trained weights.
        """
        self._sizes, self._baseline = sizes, baseline

    def build_model(self) -> nn.Module:
        """Returns the network with random weights."""
        return MovingDigitsNet()

    def load_baseline(self) -> nn.Module:
        """Returns the trained network in eval mode.

        Raises:
            UserError: the weights are missing or damaged.
        """
        weights = read_baseline(self._baseline)
        if weights is None:
            raise UserError(f"{self._baseline}: the trained weights of {self.name} are missing; install toolkit again")
        model = self.build_model()
        model.load_state_dict(weights)
        return model.eval()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns clips of the scoring split, which are repeated where there are too few."""
        clips = self._clips("score")
        return (_scaled(clips.pixels[torch.arange(batch_size) % len(clips.digits)]),)

    def num_examples(self, split: Split) -> int:
        """Returns the number of clips in a split."""
        return self._sizes[split]

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the clips of a split in a fixed order."""
        clips = self._clips(split)
        count = len(clips.digits) if limit is None else min(limit, len(clips.digits))
        for first in range(0, count, batch_size):
            yield _batch(clips, slice(first, min(first + batch_size, count)))

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields new clips without end; with a share, they are made of that share of the training digits' images."""
        rng = np.random.default_rng([seed, 1])
        material = training_material()
        total = len(material.labels)
        material = material.of(rng.permutation(total)[: max(1, round(share * total))])
        while True:
            yield _batch(make_clips(batch_size, material, rng), slice(None))

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Returns the sum of the cross-entropies of digit and motion."""
        digit, motion = outputs
        return F.cross_entropy(digit, targets[:, 0]) + F.cross_entropy(motion, targets[:, 1])

    def alignment(self, student: Any, teacher: Any, targets: Any, options: AlignmentOptions) -> dict[str, Tensor]:
        """Returns `class`, the KL divergences of digit and motion, added up and averaged over the batch."""
        if options.class_loss == "bernoulli":
            terms = [
                bernoulli_divergence(*pair, options.temperature).sum(-1) for pair in zip(student, teacher, strict=True)
            ]
        else:
            terms = [softmax_divergence(*pair, options.temperature) for pair in zip(student, teacher, strict=True)]
        return {"class": torch.stack(terms).sum(0).mean()}

    def correct(self, outputs: Any, targets: Any) -> Tensor:
        """Returns which clips have both digit and motion right: bool [B]."""
        return _right(outputs, targets).all(1)

    def strata(self, split: Split) -> Strata:
        """Returns the true motion of every clip of a split."""
        return Strata(MOTIONS, self._clips(split).motions)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: Split, *, limit: int | None = None) -> Quality:
        """Returns the share of the clips that have both digit and motion right, with its 95 % bootstrap interval.

        Its details are the accuracies of digit and motion, and the joint accuracy of every true motion.

        Raises:
            StageError: the outputs are not finite numbers.
        """
        device = device_of(model)
        parts: list[Tensor] = []
        with evaluating(model):
            for batch in self.batches(split, EVALUATION_BATCH, limit=limit):
                outputs = [part.cpu() for part in model(*(part.to(device) for part in batch.inputs))]
                check_finite(torch.cat(outputs, 1), batch, split, sum(map(len, parts)))
                parts.append(_right(outputs, batch.targets))
        right = torch.cat(parts)
        return share_of(right.all(1), self.metric, split, _details(right, self._clips(split).motions))

    def timeline(self, model: nn.Module) -> Timeline | None:
        """Returns None: a clip has one label."""
        return None

    def _clips(self, split: Split) -> Clips:
        return _made(split, self._sizes[split])


@lru_cache(maxsize=8)
def _made(split: Split, count: int) -> Clips:
    return make_clips(count, material_of(split), np.random.default_rng(SEEDS[split]))


def _scaled(pixels: Tensor) -> Tensor:
    return (pixels.float() / 255 - MEAN) / DEVIATION


def _batch(clips: Clips, places: slice) -> Batch:
    return Batch((_scaled(clips.pixels[places]),), torch.stack([clips.digits[places], clips.motions[places]], dim=1))


def _right(outputs: Any, targets: Tensor) -> Tensor:
    """Returns which of digit and motion are right: bool [B, 2]."""
    return torch.stack([logits.argmax(1) for logits in outputs], dim=1) == targets


def _details(right: Tensor, motions: Tensor) -> dict[str, float]:
    """Returns the accuracies of the evaluated clips, which are the first of their split.

    right: bool [N, 2], of digit and motion.
    motions: the true motions of the whole split.
    """
    shares = right.double().mean(0).tolist()
    by_name = dict(zip(("digit", "motion"), shares, strict=True))
    both, motions = right.all(1).double(), motions[: len(right)]
    return by_name | {
        f"both, {name}": float(both[motions == number].mean())
        for number, name in enumerate(MOTIONS)
        if bool((motions == number).any())
    }


def make_moving_digits() -> MovingDigitsTask:
    """Returns the task with the network that ships with the toolkit."""
    return MovingDigitsTask()
