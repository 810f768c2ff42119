"""The search for one plan: scores along the way, and the runoff among the best of them."""

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
    """Searches with as many scores as `evaluations` says; what was scored for one budget is known for the next.

    num_finalists: plans of every family that run off against each other; with 1 or 0 the best score decides.
    recover: the recovery that follows; finalists are judged after its first steps.
    judged_loss: the loss on fresh data of the plan that `best` returned last; None where there was no runoff.
    width_repair: the repair of the width stage that was better for that plan on fresh data.
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
        """Returns the best plan of the family within the limits, None if there is none."""
        tables = self.profile.tables
        if not self.evaluations:
            first = minimise_loss(tables, limits, family)
            return None if first is None else BestPlan(first, ORDERS[0], tables.dense_loss)
        with self.profile.console.progress(f"scoring plans ({family})", num_scores(family, self.evaluations)) as bar:

            def score(choice: Plan, order: str) -> float:
                loss = self.profile.score(choice, order)
                bar.advance()
                return loss

            self.scorer.score = score
            found = refine(tables, limits, family, self.scorer, self.evaluations, self.seed)
        return found if found is None or self.num_finalists < 2 else self._judged(limits, family)

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
        plainer = self.profile.judged(best.choice, best.order, "closed_form", self.recover)
        if plainer <= self.judged_loss:
            self.judged_loss, self.width_repair = plainer, "closed_form"
        return best
