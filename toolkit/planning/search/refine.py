"""From the best plan on paper to the best plan as applied: a few are scored end to end. Pure; `score` is given."""

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

Score = Callable[[Plan, str], float]  # the loss of a plan applied in an order; lower is better

ORDERS = ("depth_then_width", "width_then_depth", "interleaved")

EVALUATIONS = 2  # plans of one axis that are scored end to end for one budget

EXAMPLES = 16  # of the scoring and the calibration split: enough to compare plans on the same ones

ROUND_TO = 8  # what widths are multiples of

HALVINGS = 6  # of the way from a budget to the dense model, to find where a quality is kept

COMBINED_SHARE = 4  # times as many scores as for one axis: it has far more plans

MOST_KNOWN = 40  # draws in a row that name no new plan: the family has hardly any other


@dataclass(frozen=True)
class BestPlan:
    """The best plan that was scored."""

    choice: Plan
    order: str
    loss: float


@dataclass
class CountingScorer:
    """Scores each plan once. `spent` counts the plans, also those whose score `score` knows from before."""

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
        return (choice, ORDERS[0]) in self.known

    def scores(self, family: PlanFamily) -> dict[Plan, float]:
        """Those of the family's plans, in the first order alone: what the order does is not in the tables."""
        return {
            choice: loss for (choice, order), loss in self.known.items() if order == ORDERS[0] and is_of(choice, family)
        }


def num_scores(family: PlanFamily, evaluations: int) -> int:
    """About how many plans `refine` scores."""
    even = 0 if family == "depth" else len(SHARES)
    return evaluations * (2 + COMBINED_SHARE if family == "combined" else 1) + even


def refine(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: CountingScorer, evaluations: int, seed: int = 0
) -> BestPlan | None:
    """The best of about `num_scores` plans within the limits, by score; None if the family has none.

    Scored are the optimum on paper and plans that cut all widths alike (`even_plans`), then the optima of tables that
    are corrected by all scores so far (`Surrogate`): as they are believed to be and, in turn, as they might be
    (Thompson sampling). The combined family starts from the best depth-only and width-only plans as well, so it is
    never worse than either. The order of stages is tried on the best plan. `seed` is that of the draws.
    """
    first = minimise_loss(tables, limits, family)
    if first is None:
        return None
    starts = [first]
    own = evaluations
    if family == "combined":
        own = COMBINED_SHARE * evaluations
        for axis in ("depth", "width"):
            found = refine(tables, limits, axis, scorer, evaluations, seed)
            if found is not None:
                starts.append(found.choice)
    starts = list(dict.fromkeys([*starts, *(even_plans(tables, limits, family) if evaluations else ())]))
    rng = np.random.default_rng(seed)
    best = min([*starts, *_learnt(tables, limits, family, scorer, starts, own, rng)], key=scorer)
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
    """`evaluations` plans less one, each named by what the scores before it say; the starts are scored first."""
    found: list[Plan] = []
    minimiser = LossMinimiser(tables, limits, family)
    for choice in starts:
        scorer(choice)
    while len(found) < evaluations - 1:
        surrogate = Surrogate(tables, scorer.scores(family))
        first = [surrogate.believed()] if len(found) % 2 == 0 else []
        corrected = itertools.chain(first, itertools.islice(surrogate.sampled(rng), MOST_KNOWN))
        named = (minimiser.minimise(one) for one in corrected)
        new = next((choice for choice in named if choice is not None and not scorer.knows(choice)), None)
        if new is None:
            break
        scorer(new)
        found.append(new)
    return found


def is_of(choice: Plan, family: PlanFamily) -> bool:
    if family == "depth":
        return not choice.levels and not choice.context
    return family == "combined" or not choice.dropped


def fits(tables: Tables, limits: Limits, choice: Plan) -> bool:
    return all(cost(tables, choice, name) <= limit + 1e-9 for name, limit in limits.items())


def nearest(tables: Tables, limits: Limits, family: PlanFamily) -> float | None:
    """The least that the family can make of the first limit's resource, within the others; None if of none of it."""
    primary = next(iter(limits))
    found = minimise_cost(tables, primary, limits, family)
    return None if found is None else cost(tables, found, primary)


def nearest_with_quality(
    tables: Tables, limits: Limits, family: PlanFamily, quality: Callable[[Plan], float], floor: float
) -> tuple[float, float] | None:
    """About the least share of the first limit's resource whose plan on paper keeps `floor`, and what it keeps.

    By halving between the first limit and the dense model; None if nothing that was tried keeps it.
    """
    primary = next(iter(limits))
    below, above, kept = limits[primary], 1.0, None
    for _ in range(HALVINGS):
        share = (below + above) / 2
        choice = minimise_loss(tables, {**limits, primary: share}, family)
        found = -np.inf if choice is None else quality(choice)
        if found >= floor:
            above, kept = share, (share, found)
        else:
            below = share
    return kept
