"""The runoff: the best plans by score are judged once more, on data that nothing was chosen on. Pure; `judge` is given.

The best of many scores is lower than its plan is worth, and the more so the more plans there are: the combined family
has far more than one axis. Fresh data take that advantage away, and the best plans of one axis run too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from toolkit.planning.search.refine import BestPlan, Limits, fits, is_of
from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import Plan, Tables

FINALISTS = 3  # of every family that runs

FAR_SHARE = 0.1  # of the dense model's loss

Judge = Callable[[Plan, str], float]  # the loss of a plan applied in an order, on fresh data


def finalists(
    tables: Tables, limits: Limits, family: PlanFamily, known: Mapping[tuple[Plan, str], float], number: int
) -> list[BestPlan]:
    """Returns the `number` best plans by score within the limits, each in its best order.

    For the combined family these are plans that cut both axes, and the best ones of each axis alone follow.
    """
    best: dict[Plan, BestPlan] = {}
    for (choice, order), loss in sorted(known.items(), key=lambda item: item[1]):
        if fits(tables, limits, choice):
            best.setdefault(choice, BestPlan(choice, order, loss))
    if family != "combined":
        return [one for one in best.values() if is_of(one.choice, family)][:number]
    alone = {axis: [one for one in best.values() if is_of(one.choice, axis)] for axis in ("depth", "width")}
    both = [one for one in best.values() if all(one not in plans for plans in alone.values())]
    return list(dict.fromkeys([*both[:number], *alone["depth"][:number], *alone["width"][:number]]))


def contenders(plans: Sequence[BestPlan], dense_loss: float) -> list[BestPlan]:
    """Returns the plans that fresh data could still put first: those not far behind the best score.

    Far is as much again as the best plan adds to the dense model's loss, or a tenth of that loss where it adds less.
    """
    best = min(plan.loss for plan in plans)
    far = max(best - dense_loss, FAR_SHARE * abs(dense_loss))
    return [plan for plan in plans if plan.loss - best <= far]


def run_off(plans: Sequence[BestPlan], judge: Judge) -> tuple[BestPlan, float]:
    """Returns the finalist of least loss on fresh data, and that loss."""
    losses = {plan: judge(plan.choice, plan.order) for plan in plans}
    best = min(losses, key=losses.__getitem__)
    return best, losses[best]
