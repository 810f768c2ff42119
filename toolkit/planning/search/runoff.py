"""Holds the runoff, which judges the best plans by score once more on data that no choice was made on.

The least of many scores is too good for its plan, and the more plans were scored, the more so; the combined family has
far more plans than one axis. Fresh data take that advantage away, and the best plans of one axis take part as well.
The functions are pure: the caller gives the function that judges a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolkit.planning.search.refine import BestPlan, Limits, fits, is_of
from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import Plan, Tables

FINALISTS = 3  # plans of every family that takes part

FAR_SHARE = 0.1  # share of the dense model's loss

Judge = Callable[[Plan, str], float]  # returns the loss on fresh data of a plan that is applied in an order


def finalists(
    tables: Tables, limits: Limits, family: PlanFamily, known: Mapping[tuple[Plan, str], float], number: int
) -> list[BestPlan]:
    """Returns the `number` best plans by score within the limits, each in its best order.

    For the combined family these are the best plans that cut both axes, then the best ones of each axis alone.

    known: the scores by plan and order of stages.
    """
    best: dict[Plan, BestPlan] = {}
    for (choice, order), loss in sorted(known.items(), key=lambda item: item[1]):
        if fits(tables, limits, choice):
            best.setdefault(choice, BestPlan(choice, order, loss))
    if family != "combined":
        return [plan for plan in best.values() if is_of(plan.choice, family)][:number]
    alone = {axis: [plan for plan in best.values() if is_of(plan.choice, axis)] for axis in ("depth", "width")}
    both = [plan for plan in best.values() if all(plan not in plans for plans in alone.values())]
    return list(dict.fromkeys([*both[:number], *alone["depth"][:number], *alone["width"][:number]]))


def contenders(plans: Sequence[BestPlan], dense_loss: float) -> list[BestPlan]:
    """Returns the plans that are close enough to the best score for fresh data to put them first.

    A plan is close if its loss exceeds that of the best plan by no more than the best plan adds to the dense model's
    loss, or by no more than a tenth of the dense model's loss, whichever allows more.
    """
    best = min(plan.loss for plan in plans)
    far = max(best - dense_loss, FAR_SHARE * abs(dense_loss))
    return [plan for plan in plans if plan.loss - best <= far]


def run_off(plans: Sequence[BestPlan], judge: Judge) -> tuple[BestPlan, float]:
    """Returns the finalist of least loss on fresh data, and that loss."""
    losses = {plan: judge(plan.choice, plan.order) for plan in plans}
    best = min(losses, key=losses.__getitem__)
    return best, losses[best]
