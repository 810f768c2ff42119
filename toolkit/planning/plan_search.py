"""Searches for one plan: scores plans end to end, then holds a runoff among the best ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.search.refine import ORDERS, BestPlan, CountingScorer, num_scores, refine
from toolkit.planning.search.runoff import contenders, finalists, run_off
from toolkit.planning.search.solver import PlanFamily, minimise_loss
from toolkit.planning.tables import Plan
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.stages.recover.settings import Recover


@dataclass
class PlanSearch:
    """Searches for plans of one model, and keeps the scores of one search for the next.

    evaluations: the number of plans that are scored end to end for one axis; 0 uses the tables alone.
    seed: the seed of the search's random draws.
    num_finalists: plans of every family that are judged on fresh data; with 1 or 0 the best score decides.
    recover: the recovery that follows the plan; finalists are judged after the first of its steps.
    judged_loss: the loss on fresh data of the plan that `best` returned last; None where there was no runoff.
    width_repair: the repair of the width stage that is better on fresh data for the plan that `best` returned last.
    """

    profile: ModelProfile
    evaluations: int
    seed: int
    num_finalists: int
    recover: Recover | None = None
    judged_loss: float | None = None
    width_repair: WidthRepair = "closed_form"
    scorer: CountingScorer = field(init=False)

    def __post_init__(self) -> None:
        self.scorer = CountingScorer(self.profile.score)

    def best(self, limits: dict[str, float], family: PlanFamily) -> BestPlan | None:
        """Returns the best plan of the family within the limits, or None if the family has no such plan.

        limits: shares of what the dense model takes, by resource.
        family: the axes that may be cut: `depth`, `width` or `combined`.
        """
        tables = self.profile.tables
        if not self.evaluations:
            optimum = minimise_loss(tables, limits, family)
            return None if optimum is None else BestPlan(optimum, ORDERS[0], tables.dense_loss)
        with self.profile.console.progress(f"scoring plans ({family})", num_scores(family, self.evaluations)) as bar:

            def score(choice: Plan, order: str) -> float:
                loss = self.profile.score(choice, order)
                bar.advance()
                return loss

            self.scorer.score = score
            best = refine(tables, limits, family, self.scorer, self.evaluations, self.seed)
            bar.end()  # fewer plans than at most
        return best if best is None or self.num_finalists < 2 else self._judged(limits, family)

    def _judged(self, limits: dict[str, float], family: PlanFamily) -> BestPlan:
        tables = self.profile.tables
        plans = finalists(tables, limits, family, self.scorer.known, self.num_finalists)
        plans = contenders(plans, tables.dense_loss)
        with self.profile.console.progress(f"judging finalists ({family})", len(plans)) as bar:

            def judge(choice: Plan, order: str) -> float:
                loss = self.profile.judged(choice, order, "all_layers", self.recover)
                bar.advance()
                return loss

            best, self.judged_loss = run_off(plans, judge)
        self.width_repair = "all_layers"
        plain_loss = self.profile.judged(best.choice, best.order, "closed_form", self.recover)
        if plain_loss <= self.judged_loss:
            self.judged_loss, self.width_repair = plain_loss, "closed_form"
        return best
