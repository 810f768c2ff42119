"""From the best plan on paper to the best plan as applied: a few are scored end to end. Pure; `score` is given.

Controls: the best of as many random plans, and a greedy descent with as many scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from toolkit.planning.solver import Fixed, PlanFamily, minimise_cost, minimise_loss
from toolkit.planning.tables import Choice, Tables, added_loss, cost, make_choice

Limits = Mapping[str, float]
Score = Callable[[Choice, str], float]  # the loss of a plan applied in an order; lower is better
ORDERS = ("depth_then_width", "width_then_depth", "interleaved")
EVALUATIONS = 6  # plans that are scored end to end for one budget
EXAMPLES = 16  # of the scoring and the calibration split: enough to compare plans on the same ones
MOST_DEAD_ENDS = 200
HALVINGS = 6  # of the way from a budget to the dense model, to find where a quality is kept
FIRST_SHARE = 0.5  # of the scores of a family goes to plans that the tables name, the rest to their neighbours


@dataclass(frozen=True)
class Found:
    """The best plan that was scored."""

    choice: Choice
    order: str
    loss: float


@dataclass
class Scorer:
    """Scores each plan once. `spent` counts the plans, also those whose score `score` knows from before."""

    score: Score
    known: dict[tuple[Choice, str], float] = field(default_factory=dict)
    spent: int = 0

    def __call__(self, choice: Choice, order: str = ORDERS[0]) -> float:
        if not choice.dropped or not (choice.levels or choice.context):
            order = ORDERS[0]  # one axis alone: all orders are the same
        if (choice, order) not in self.known:
            self.known[choice, order] = self.score(choice, order)
            self.spent += 1
        return self.known[choice, order]


def refine(tables: Tables, limits: Limits, family: PlanFamily, scorer: Scorer, evaluations: int) -> Found | None:
    """The best of about `evaluations` plans within the limits, by score; None if the family has none.

    Scored are the optimum on paper, the optima for every number of dropped blocks, and neighbours of the best so far.
    The combined family starts from the best depth-only and width-only plans, each found with as many scores, so it is
    never worse than either. The order of stages is tried on the best plan.
    """
    first = minimise_loss(tables, limits, family)
    if first is None:
        return None
    starts = [first]
    left = evaluations
    if family == "combined":
        for axis in ("depth", "width"):
            found = refine(tables, limits, axis, scorer, evaluations)
            if found is not None:
                starts.append(found.choice)
    best = _best(scorer, [*starts, *_first_plans(tables, limits, family)], max(int(FIRST_SHARE * left), len(starts)))
    left -= max(int(FIRST_SHARE * left), 1)
    best = _descend(tables, limits, family, scorer, best, left)
    tried = ORDERS if family == "combined" and evaluations else ORDERS[:1]
    losses = {order: scorer(best, order) for order in tried}
    order = min(losses, key=losses.__getitem__)
    return Found(best, order, losses[order])


def _best(scorer: Scorer, choices: Iterable[Choice], number: int) -> Choice:
    chosen = list(dict.fromkeys(choices))[: max(number, 1)]
    return min(chosen, key=scorer)


def _first_plans(tables: Tables, limits: Limits, family: PlanFamily) -> list[Choice]:
    """The optimum for every number of dropped blocks in every context, the least loss on paper first."""
    numbers = range(len(tables.blocks)) if family != "width" else range(1)
    contexts = range(len(tables.contexts) if family != "depth" else 1)
    found = [minimise_loss(tables, limits, family, Fixed(num_drops=n, context=c)) for c in contexts for n in numbers]
    return sorted((choice for choice in found if choice is not None), key=lambda choice: added_loss(tables, choice))


def _descend(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: Scorer, best: Choice, evaluations: int
) -> Choice:
    """Go to the first better neighbour, those of least loss on paper first, until the scores are spent."""
    end = scorer.spent + evaluations
    tried = {best}
    while scorer.spent < end:
        options = [choice for choice in _neighbours(tables, limits, family, best) if choice not in tried]
        better = None
        for choice in sorted(options, key=lambda option: added_loss(tables, option)):
            if scorer.spent >= end:
                break
            tried.add(choice)
            if scorer(choice) < scorer(best):
                better = choice
                break
        if better is None:
            break
        best = better
    return best


def _neighbours(tables: Tables, limits: Limits, family: PlanFamily, choice: Choice) -> Iterator[Choice]:
    """One block more, less, or another one, with the best widths for that; and widths moved from group to group."""
    names = [block.name for block in tables.blocks]
    drops = [choice.dropped ^ {name} for name in names]
    drops += [
        choice.dropped - {one} | {other} for one in choice.dropped for other in names if other not in choice.dropped
    ]
    for dropped in drops if family != "width" else []:
        if len(dropped) < len(names):
            found = minimise_loss(tables, limits, family, Fixed(dropped=frozenset(dropped), context=choice.context))
            if found is not None:
                yield found
    if family != "depth":
        yield from _moved(tables, limits, choice)


def _moved(tables: Tables, limits: Limits, choice: Choice) -> Iterator[Choice]:
    """A group one step wider and another one narrower, as far as the limits hold."""
    there = [group for group in tables.groups if group.block not in choice.dropped]
    for wider in there:
        level = choice.levels.get(wider.name, 0)
        if level == 0:
            continue
        for narrower in there:
            now = choice.levels.get(narrower.name, 0)
            if narrower.name != wider.name and now + 1 < len(narrower.widths):
                levels = {**choice.levels, wider.name: level - 1, narrower.name: now + 1}
                moved = make_choice(tables, choice.context, choice.dropped, levels)
                if fits(tables, limits, moved):
                    yield moved


def fits(tables: Tables, limits: Limits, choice: Choice) -> bool:
    return all(cost(tables, choice, name) <= limit + 1e-9 for name, limit in limits.items())


def random_search(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: Scorer, evaluations: int, seed: int
) -> Found | None:
    """A control: the best of random plans that just hold the limits."""
    if minimise_loss(tables, limits, family) is None:
        return None
    rng = np.random.default_rng(seed)
    end = scorer.spent + evaluations
    best: Found | None = None
    repeats = 0
    while scorer.spent < end and repeats < MOST_DEAD_ENDS:  # the family may have fewer plans than that
        before = scorer.spent
        choice = random_choice(tables, limits, family, rng)
        loss = scorer(choice)
        repeats = repeats + 1 if scorer.spent == before else 0
        if best is None or loss < best.loss:
            best = Found(choice, ORDERS[0], loss)
    return best


def random_choice(tables: Tables, limits: Limits, family: PlanFamily, rng: np.random.Generator) -> Choice:
    """Single random changes of an unmodified model until the limits hold; begun anew where no change is left.

    After many dead ends, the least cost that there is.
    """
    for _ in range(MOST_DEAD_ENDS):
        choice = Choice()
        while not fits(tables, limits, choice):
            options = list(single_changes(tables, family, choice))
            if not options:
                break
            choice = options[int(rng.integers(len(options)))]
        else:
            return choice
    return minimise_cost(tables, next(iter(limits)), {}, family) or Choice()


def single_changes(tables: Tables, family: PlanFamily, choice: Choice) -> Iterator[Choice]:
    """Everything that cuts one thing more: a block, one of a group's further widths, the stream's next width."""
    names = [block.name for block in tables.blocks]
    if family != "width" and len(choice.dropped) + 1 < len(names):
        for name in names:
            if name not in choice.dropped:
                yield make_choice(tables, choice.context, choice.dropped | {name}, choice.levels)
    if family == "depth":
        return
    for group in tables.groups:
        level = choice.levels.get(group.name, 0)
        for lower in range(level + 1, len(group.widths)) if group.block not in choice.dropped else ():
            yield make_choice(tables, choice.context, choice.dropped, {**choice.levels, group.name: lower})
    if choice.context + 1 < len(tables.contexts):
        yield Choice(choice.context + 1, choice.dropped, choice.levels)


def greedy_search(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: Scorer, evaluations: int, seed: int
) -> Found | None:
    """A control: at every step the change of least loss per cost among some random ones, until the limits hold.

    The number scored at a step shares `evaluations` out evenly over about as many steps as random changes take. What is
    left then goes into further descents; the best one counts.
    """
    if minimise_loss(tables, limits, family) is None:
        return None
    rng = np.random.default_rng(seed)
    steps = max(1, round(np.mean([_num_changes(random_choice(tables, limits, family, rng)) for _ in range(20)])))
    each = max(1, evaluations // steps)
    end = scorer.spent + evaluations
    best: Found | None = None
    repeats = 0
    while repeats < MOST_DEAD_ENDS and (scorer.spent < end or best is None):
        before = scorer.spent
        found = _descent(tables, limits, family, scorer, each, rng, end, must_end=best is None)
        if found is not None and (best is None or found.loss < best.loss):
            best = found
        repeats = repeats + 1 if scorer.spent == before else 0
    return best


def _descent(
    tables: Tables,
    limits: Limits,
    family: PlanFamily,
    scorer: Scorer,
    each: int,
    rng: np.random.Generator,
    end: int,
    must_end: bool,
) -> Found | None:
    """None where it ends outside the limits. Past `end` it stops with nothing, or goes on without a choice."""
    primary = next(iter(limits))
    choice, loss = Choice(), tables.dense_loss
    while not fits(tables, limits, choice):
        options = [one for one in single_changes(tables, family, choice) if _saves(tables, primary, choice, one)]
        is_over = scorer.spent >= end
        if not options or (is_over and not must_end):
            return None
        chosen = [options[index] for index in rng.permutation(len(options))[: 1 if is_over else each]]
        now, before = cost(tables, choice, primary), loss
        scores = {one: scorer(one) for one in chosen}
        choice = min(scores, key=lambda one: (scores[one] - before) / (now - cost(tables, one, primary)))
        loss = scores[choice]
    return Found(choice, ORDERS[0], scorer(choice))


def _saves(tables: Tables, resource: str, before: Choice, after: Choice) -> bool:
    return cost(tables, after, resource) < cost(tables, before, resource) - 1e-6


def _num_changes(choice: Choice) -> int:
    return len(choice.dropped) + sum(choice.levels.values()) + choice.context


def nearest(tables: Tables, limits: Limits, family: PlanFamily) -> float | None:
    """The least that the family can make of the first limit's resource, within the others; None if of none of it."""
    primary = next(iter(limits))
    found = minimise_cost(tables, primary, limits, family)
    return None if found is None else cost(tables, found, primary)


def nearest_with_quality(
    tables: Tables, limits: Limits, family: PlanFamily, quality: Callable[[Choice], float], floor: float
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
