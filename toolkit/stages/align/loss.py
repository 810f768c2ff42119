"""Computes the loss of cross-depth alignment from block outputs, predictions and the task's own loss.

Progressive Block Drop, Chen et al., CVPR 2025, arXiv 2503.16916.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.base.errors import StageError
from toolkit.hooks.held import attributes_kept
from toolkit.hooks.points import ActivationPoint, watched
from toolkit.hooks.tensors import usable_in_training
from toolkit.stages.align.settings import Align
from toolkit.tasks.task import AlignmentOptions, Batch, Task


@dataclass(frozen=True)
class AlignLoss:
    """Computes the loss of a student on a batch.

    blocks: names of the remaining blocks, the same in student and teacher.
    """

    task: Task
    teacher: nn.Module
    blocks: tuple[str, ...]
    config: Align

    def __call__(self, student: nn.Module, batch: Batch) -> Tensor:
        """Returns the weighted sum of all terms, a scalar.

        Raises:
            StageError: a weight is for a term that the task does not have, or no term has a weight above 0.
        """
        config = self.config
        outputs, features = run_with_features(student, self.blocks, batch.inputs)
        with torch.no_grad(), attributes_kept(self.teacher):
            goal, goal_features = usable_in_training(run_with_features(self.teacher, self.blocks, batch.inputs))
        parts = self._weighted_terms(outputs, goal, batch.targets)
        if config.task_weight:
            parts.append(config.task_weight * self.task.loss(outputs, batch.targets))
        if config.feature_weight:
            parts.append(config.feature_weight * feature_distance(features, goal_features))
        if not parts:
            raise StageError("no term of the loss has a weight above 0: there is nothing to learn from")
        return torch.stack(parts).sum()

    def _weighted_terms(self, outputs: Any, goal: Any, targets: Any) -> list[Tensor]:
        config = self.config
        options = AlignmentOptions(config.temperature, config.class_loss, config.segment_loss)
        terms = self.task.alignment(outputs, goal, targets, options)
        weights_asked = {"class": config.class_weight, "segment": config.segment_weight}
        for name, weight in weights_asked.items():
            if weight is not None and name not in terms:
                raise StageError(
                    f"{name}_weight is {weight}, but task {self.task.name!r} has no alignment term {name!r}; "
                    f"it has: {', '.join(terms) or 'none'}; leave {name}_weight out"
                )
        weights = {name: weights_asked.get(name) for name in terms}
        return [(1.0 if w is None else w) * terms[name] for name, w in weights.items() if w != 0.0]


def run_with_features(
    model: nn.Module, blocks: Sequence[str], inputs: tuple[Tensor, ...]
) -> tuple[Any, dict[str, Tensor]]:
    """Returns the outputs of the model, and the first tensor of the output of each block."""
    features: dict[str, Tensor] = {}

    def note(point: ActivationPoint, value: Tensor) -> None:
        features[point.module] = value

    with watched(model, [ActivationPoint(block, "output") for block in blocks], note, live=True):
        outputs = model(*inputs)
    return outputs, features


def feature_distance(student: dict[str, Tensor], teacher: dict[str, Tensor]) -> Tensor:
    """Returns the mean over blocks of the mean squared difference of their outputs.

    Raises:
        StageError: the output of a block has another shape than the teacher's.
    """
    for name, feature in student.items():
        if feature.shape != teacher[name].shape:
            raise StageError(
                f"block {name} returns {tuple(feature.shape)}, the teacher's returns {tuple(teacher[name].shape)}, so "
                "they cannot be compared: set feature_weight: 0"
            )
    return torch.stack([F.mse_loss(feature, teacher[name]) for name, feature in student.items()]).mean()
