"""Refines the optimum of the tables: scores a few whole plans and corrects the tables by the scores.

The functions are pure: the caller gives the function that scores a plan.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from toolkit.planning.search.even_plans import SHARES, even_plans
from toolkit.planning.search.solver import LossMinimiser, PlanFamily, minimise_cost, minimise_loss
from toolkit.planning.search.surrogate import Surrogate
from toolkit.planning.tables import Plan, Tables, cost

Limits = Mapping[str, float]

Score = Callable[[Plan, str], float]  # returns the loss of a plan that is applied in an order

ORDERS = ("depth_then_width", "width_then_depth", "interleaved")

EVALUATIONS = 2  # plans scored end to end for one axis and one budget

EXAMPLES = 16  # of the scoring and of the calibration split: enough, because all plans are compared on the same ones

ROUND_TO = 8  # widths are multiples of this number

HALVINGS = 6  # steps of the search between a budget and the dense model for where a quality is kept

COMBINED_SHARE = 4  # the combined family has far more plans than one axis, so it gets this many times the scores

MOST_KNOWN = 40  # after so many draws in a row without a new plan the family has hardly any other, and drawing stops


@dataclass(frozen=True)
class BestPlan:
    """Holds the best plan that was scored, the order of its stages and its loss."""

    choice: Plan
    order: str
    loss: float


@dataclass
class CountingScorer:
    """Scores each plan once and remembers the scores.

    known: the scores by plan and order of stages.
    spent: the number of plans that `score` was called for, including those that it had kept from an earlier search.
    """

    score: Score
    known: dict[tuple[Plan, str], float] = field(default_factory=dict)
    spent: int = 0

    def __call__(self, choice: Plan, order: str = ORDERS[0]) -> float:
        if not choice.dropped or not (choice.levels or choice.context):
            order = ORDERS[0]  # one axis alone: all orders are the same
        if (choice, order) not in self.known:
            self.known[choice, order] = self.score(choice, order)
            self.spent += 1
        return self.known[choice, order]

    def knows(self, choice: Plan) -> bool:
        """Returns whether the plan is scored already in the first order of stages."""
        return (choice, ORDERS[0]) in self.known

    def scores(self, family: PlanFamily) -> dict[Plan, float]:
        """Returns the known scores of the family's plans in the first order of stages; tables do not model orders."""
        return {
            choice: loss for (choice, order), loss in self.known.items() if order == ORDERS[0] and is_of(choice, family)
        }


def num_scores(family: PlanFamily, evaluations: int) -> int:
    """Returns how many plans `refine` scores at most, for one evaluation or more.

    It scores fewer where plans of the families coincide, or where a family has no further plan.
    """
    if family == "combined":
        axes = num_scores("depth", evaluations) + num_scores("width", evaluations)
        return axes + COMBINED_SHARE * evaluations + len(SHARES) + len(ORDERS) - 1
    return evaluations + (0 if family == "depth" else len(SHARES))


def refine(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: CountingScorer, evaluations: int, seed: int = 0
) -> BestPlan | None:
    """Returns the plan of least score among at most `num_scores` plans within the limits; None if the family has none.

    First it scores the optimum of the tables and plans that cut all widths alike (`even_plans`). Then it scores optima
    of tables that are corrected by all scores so far (`Surrogate`): in turn the most likely tables and a random draw of
    them (Thompson sampling). The combined family starts from the best depth-only and width-only plans too, so its plan
    scores no worse than theirs. All orders of stages are tried on the best plan. `seed` is the seed of the draws.
    """
    optimum = minimise_loss(tables, limits, family)
    if optimum is None:
        return None
    starts = [optimum]
    of_family = evaluations
    if family == "combined":
        of_family = COMBINED_SHARE * evaluations
        for axis in ("depth", "width"):
            best_of_axis = refine(tables, limits, axis, scorer, evaluations, seed)
            if best_of_axis is not None:
                starts.append(best_of_axis.choice)
    starts = list(dict.fromkeys([*starts, *(even_plans(tables, limits, family) if evaluations else ())]))
    rng = np.random.default_rng(seed)
    best = min([*starts, *_learnt(tables, limits, family, scorer, starts, of_family, rng)], key=scorer)
    orders = ORDERS if family == "combined" and evaluations else ORDERS[:1]
    losses = {order: scorer(best, order) for order in orders}
    order = min(losses, key=losses.__getitem__)
    return BestPlan(best, order, losses[order])


def _learnt(
    tables: Tables,
    limits: Limits,
    family: PlanFamily,
    scorer: CountingScorer,
    starts: Sequence[Plan],
    evaluations: int,
    rng: np.random.Generator,
) -> list[Plan]:
    """Returns at most `evaluations - 1` new plans, each an optimum of tables corrected by all scores before it.

    The plans in `starts` are scored first.
    """
    plans: list[Plan] = []
    minimiser = LossMinimiser(tables, limits, family)
    for choice in starts:
        scorer(choice)
    while len(plans) < evaluations - 1:
        surrogate = Surrogate(tables, scorer.scores(family))
        likeliest = [surrogate.believed()] if len(plans) % 2 == 0 else []
        corrected = itertools.chain(likeliest, itertools.islice(surrogate.sampled(rng), MOST_KNOWN))
        optima = (minimiser.minimise(drawn) for drawn in corrected)
        new = next((choice for choice in optima if choice is not None and not scorer.knows(choice)), None)
        if new is None:
            break
        scorer(new)
        plans.append(new)
    return plans


def is_of(choice: Plan, family: PlanFamily) -> bool:
    """Returns whether the plan makes only changes of the family; the combined family has all of them."""
    if family == "depth":
        return not choice.levels and not choice.context
    return family == "combined" or not choice.dropped


def fits(tables: Tables, limits: Limits, choice: Plan) -> bool:
    """Returns whether the costs of the plan, by the tables, are within all limits."""
    return all(cost(tables, choice, name) <= limit + 1e-9 for name, limit in limits.items())


def nearest(tables: Tables, limits: Limits, family: PlanFamily) -> float | None:
    """Returns the least share of the first limit's resource that the family reaches within the other limits.

    Returns None if the family has no plan within the other limits.
    """
    primary = next(iter(limits))
    cheapest = minimise_cost(tables, primary, limits, family)
    return None if cheapest is None else cost(tables, cheapest, primary)


def nearest_with_quality(
    tables: Tables, limits: Limits, family: PlanFamily, quality: Callable[[Plan], float], floor: float
) -> tuple[float, float] | None:
    """Returns about the least share of the first limit's resource whose plan has a quality of at least `floor`.

    Halves the interval between the first limit and the dense model, and asks for the optimum of the tables at each
    share. Returns the share and the quality, or None if no share that was tried reaches the floor.
    """
    primary = next(iter(limits))
    below, above, reached = limits[primary], 1.0, None
    for _ in range(HALVINGS):
        share = (below + above) / 2
        choice = minimise_loss(tables, {**limits, primary: share}, family)
        value = -np.inf if choice is None else quality(choice)
        if value >= floor:
            above, reached = share, (share, value)
        else:
            below = share
    return reached
