"""Scores plans: computes the mean loss of a plan's repaired model on data that it was not repaired on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import torch
from torch import nn

from toolkit.base.errors import StageError
from toolkit.hooks.forward import forward_replaced
from toolkit.planning.profile.plan_models import PlanModels
from toolkit.planning.tables import Drops, Width
from toolkit.record.plan import Criterion, ScoredOn
from toolkit.repair.sequence import keeping
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.tasks.evaluate import mean_loss
from toolkit.tasks.task import AlignmentOptions, Batch, Split

SCORING_SPLITS: dict[ScoredOn, Split] = {"training": "score", "validation": "validation"}


class PlanScorer:
    """Scores plans of one dense model.

    models: makes the repaired models of plans; its meter counts the block passes of scoring too.
    examples: the number of examples of `split` that are scored; None stands for all.
    criterion: the task's loss, or the distance to the dense model's predictions.
    split: the split that is scored.
    evaluations: the number of models scored so far, without those that the caller made.
    """

    def __init__(
        self,
        models: PlanModels,
        examples: int | None = None,
        criterion: Criterion = "loss",
        split: Split = "score",
    ) -> None:
        self.models, self.task, self.criterion = models, models.task, criterion
        self.scoring: list[Batch] = list(models.context.batches(models.task, split, limit=examples))
        self.evaluations = 0
        self._outputs = models.dense_outputs([batch.inputs for batch in self.scoring])

    @property
    def block_passes(self) -> float:
        """Returns the number of block passes so far, each over all scoring examples."""
        return self.models.meter.blocks / sum(len(batch.inputs[0]) for batch in self.scoring)

    def loss_of(
        self, drops: Drops, widths: Mapping[str, Width], order: str, repair: WidthRepair = "closed_form"
    ) -> float:
        """Returns the mean loss of a plan's repaired model, by the criterion, on the scoring data.

        Raises:
            StageError: the loss is not a finite number.
        """
        self.evaluations += 1
        loss = self._score(self.models.model_of(drops, widths, order, repair), self.models.unchanged(drops, widths))
        if not math.isfinite(loss):
            cuts = ", ".join([*drops, *widths])
            raise StageError(f"the loss after cutting {cuts} is {loss}; the model or its data is broken")
        return loss

    def dense_loss(self) -> float:
        """Returns the mean loss of the dense model, by the criterion, on the scoring data."""
        self.evaluations += 1
        return self._score(self.models.dense, [])

    def loss_of_model(self, model: nn.Module) -> float:
        """Returns the mean loss of a model that the caller made, by the criterion, on the scoring data."""
        return self._score(model, [])

    @torch.no_grad()
    def _score(self, model: nn.Module, shared: Sequence[str]) -> float:
        current: list[int] = []  # holds the index of the batch that runs

        def batches() -> Iterator[Batch]:
            for number, batch in enumerate(self.scoring):
                current[:] = [number]
                yield batch

        with self.models.metered(model), ExitStack() as stack:
            for block in shared:
                replay = keeping(self._outputs, block, current)
                stack.enter_context(forward_replaced(model.get_submodule(block), replay))
            return mean_loss(model, batches(), lambda outputs, _: self._loss(outputs, current[0]))

    def _loss(self, outputs: Any, number: int) -> float:
        targets = self.scoring[number].targets
        if self.criterion == "loss":
            return float(self.task.loss(outputs, targets))
        terms = self.task.alignment(outputs, self._dense_predictions[number], targets, AlignmentOptions())
        return sum(float(term) for term in terms.values())

    @cached_property
    def _dense_predictions(self) -> list[Any]:
        """Returns the outputs of the dense model for each scoring batch."""
        with self.models.metered(self.models.dense):
            return [self.models.dense(*batch.inputs) for batch in self.scoring]
