"""Scores the candidates of one round, with or without prefix reuse and racing, and naively for comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from torch import nn

from toolkit.base.errors import StageError
from toolkit.hooks.passes import Meter
from toolkit.stages.block_drop.candidates import Variant, applied
from toolkit.stages.block_drop.criteria import as_loss, block_mse, block_mse_alone, model_score, random_scores
from toolkit.stages.block_drop.prefix import score_sharing
from toolkit.stages.block_drop.racing import SHARES, Answers, Rung, successive_halving
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


@dataclass(frozen=True)
class ScoringRound:
    """Holds what is needed to score a round.

    variants: candidate for each block, in execution order.
    number: number of the round, from 1.
    """

    model: nn.Module
    reference: nn.Module
    variants: dict[str, Variant]
    task: Task
    config: BlockDrop
    context: StageContext
    number: int

    def rungs(self, meter: Meter) -> list[Rung]:
        """Returns the scores as the stage is configured to compute them; without racing there is one rung."""
        blocks, whole = list(self.variants), self.task.num_examples("score")
        if self.config.criterion == "random":
            return [Rung(whole, random_scores(blocks, self.context.seed, self.number))]
        if self.config.criterion == "block_mse":
            variants = list(self.variants.values())
            scores = block_mse(self.model, self.reference, variants, self.task, self.context, meter)
            return [Rung(whole, {block: self._finite(block, score) for block, score in scores.items()})]
        races = self.config.racing != "none"
        total = len(blocks) if not races else sum(-(-len(blocks) // 2**rung) for rung in range(len(SHARES)))
        with self.context.console.progress(f"block_drop round {self.number}: scoring blocks", total) as bar:
            if not races:
                return [Rung(whole, self._scores(blocks, None, None, meter, bar.advance))]
            answers = Answers()
            return successive_halving(
                blocks,
                whole,
                lambda left, limit: self._scores(left, limit, answers, meter, bar.advance),
                lambda score: as_loss(score, self.config.criterion),
            )

    def naive_scores(self) -> dict[str, float]:
        """Returns scores from one evaluation per candidate on the whole scoring set."""
        if self.config.criterion == "random":
            return random_scores(list(self.variants), self.context.seed, self.number)
        return {block: self._naive_score(variant) for block, variant in self.variants.items()}

    def _naive_score(self, variant: Variant) -> float:
        if self.config.criterion == "block_mse":
            return block_mse_alone(self.model, self.reference, variant, self.task, self.context)
        with applied(self.model, variant):
            return self._score(variant, None)

    def _scores(
        self,
        blocks: Sequence[str],
        limit: int | None,
        answers: Answers | None,
        meter: Meter,
        advance: Callable[[], None],
    ) -> dict[str, float]:
        """Returns the scores of some of the blocks on `limit` examples, in the order of `blocks`."""

        def score(variant: Variant) -> float:
            with ExitStack() as stack:
                if answers is not None:
                    stack.enter_context(answers.remembered(self.model, variant.block))
                block_score = self._score(variant, limit)
            advance()
            return block_score

        chosen = [self.variants[block] for block in blocks]
        if self.config.reuse_prefix:
            scores = score_sharing(self.model, list(self.variants), chosen, score, meter)
            return {block: scores[block] for block in blocks}
        scores = {}
        for variant in chosen:
            with applied(self.model, variant):
                scores[variant.block] = score(variant)
        return scores

    def _score(self, variant: Variant, limit: int | None) -> float:
        """Returns the criterion on the model as it is now."""
        score = model_score(self.model, self.task, self.config.criterion, self.context, limit)
        return self._finite(variant.block, score)

    def _finite(self, block: str, score: float) -> float:
        if not math.isfinite(score):
            raise StageError(
                f"criterion {self.config.criterion} without block {block} is {score}, not a finite number; check the "
                "model and the scoring data"
            )
        return score
