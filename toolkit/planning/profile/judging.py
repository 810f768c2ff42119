"""Judges plans on fresh data: repairs them on other examples than the search did, and scores them on unseen ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from torch import nn

from toolkit.hooks.modes import with_flags_of
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.tables import Drops, Width
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.stages.recover.apply import apply_recover
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.task import Split

DRAWS: Final[tuple[tuple[Split, Split], ...]] = (("calibration", "holdout"), ("holdout", "calibration"))

FIRST_SHARE = 10  # one in so many of a recovery's steps is made before a plan is judged


class PlanJudge:
    """Judges plans of the model that `engine` scores.

    Each pair in `DRAWS` names the split that a plan is repaired on and the split that it is judged on. The search uses
    the calibration split for repairs alone, and does not use the held-out split.
    """

    def __init__(self, engine: PlanScorer) -> None:
        self.engine = engine

    def loss_of(
        self,
        dropped: Drops,
        widths: Mapping[str, Width],
        order: str,
        repair: WidthRepair,
        recover: Recover | None = None,
    ) -> float:
        """Returns the mean loss over the draws.

        recover: the recovery that follows the plan. The loss is that after the first of its steps, or the one before
            them where it is lower and the recovery keeps its best weights, those that it starts from included.
        """
        losses = []
        for scorer in self._scorers:
            if recover is None:
                losses.append(scorer.loss_of(dropped, widths, order, repair))
                continue
            model = scorer.models.model_of(dropped, widths, order, repair)
            untrained = scorer.loss_of_model(model) if recover.select == "best" else math.inf
            losses.append(min(untrained, scorer.loss_of_model(self._recovered(model, recover))))
        return sum(losses) / len(losses)

    def _recovered(self, model: nn.Module, recover: Recover) -> nn.Module:
        models = self.engine.models
        steps = max(1, recover.max_steps // FIRST_SHARE)
        first = {
            "max_steps": steps,
            "patience": None,
            "select": "last",  # plans are told apart by what the steps do; validation data is not for choosing plans
            "validate_every": steps,
            "warmup_steps": min(recover.warmup_steps, steps // 2),
        }
        config = recover.model_copy(update=first)
        tuned, _ = apply_recover(with_flags_of(model, models.dense), models.task, config, models.context)
        return tuned.eval()

    @cached_property
    def _scorers(self) -> list[PlanScorer]:
        models = self.engine.models
        scorers = []
        for repaired_on, judged_on in DRAWS:
            models_of_draw = models
            if repaired_on != "calibration":
                models_of_draw = models.repaired_on(repaired_on)
            scorers.append(PlanScorer(models_of_draw, models.examples, self.engine.criterion, judged_on))
        return scorers
