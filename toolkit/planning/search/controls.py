"""What the search is compared with: the best of as many random plans, and a greedy descent with as many scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from toolkit.planning.search.refine import ORDERS, BestPlan, CountingScorer, Limits, fits
from toolkit.planning.search.solver import PlanFamily, minimise_cost, minimise_loss
from toolkit.planning.tables import Plan, Tables, cost, make_plan, removals, removed_by

MOST_DEAD_ENDS = 200


def random_search(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: CountingScorer, evaluations: int, seed: int
) -> BestPlan | None:
    """A control: the best of random plans that just hold the limits."""
    if minimise_loss(tables, limits, family) is None:
        return None
    rng = np.random.default_rng(seed)
    end = scorer.spent + evaluations
    best: BestPlan | None = None
    repeats = 0
    while scorer.spent < end and repeats < MOST_DEAD_ENDS:  # the family may have fewer plans than that
        before = scorer.spent
        choice = random_choice(tables, limits, family, rng)
        loss = scorer(choice)
        repeats = repeats + 1 if scorer.spent == before else 0
        if best is None or loss < best.loss:
            best = BestPlan(choice, ORDERS[0], loss)
    return best


def random_choice(tables: Tables, limits: Limits, family: PlanFamily, rng: np.random.Generator) -> Plan:
    """Single random changes of an unmodified model until the limits hold; begun anew where no change is left.

    After many dead ends, the least cost that there is.
    """
    for _ in range(MOST_DEAD_ENDS):
        choice = Plan()
        while not fits(tables, limits, choice):
            options = list(single_changes(tables, family, choice))
            if not options:
                break
            choice = options[int(rng.integers(len(options)))]
        else:
            return choice
    return minimise_cost(tables, next(iter(limits)), {}, family) or Plan()


def single_changes(tables: Tables, family: PlanFamily, choice: Plan) -> Iterator[Plan]:
    """Everything that cuts one thing more: a block, with or without a bypass in its place, the bypass or a part of its
    rank, one of a group's further widths, the stream's next width.
    """
    gone = removed_by(choice)
    if family != "width":
        for name, place in removals(tables):
            is_new = name not in gone and len(gone) + 1 < len(tables.blocks)
            held = gone.get(name)
            is_less = held is not None and (place is None or place > held)
            if is_new or is_less:
                yield make_plan(tables, choice.context, {**gone, name: place}.items(), choice.levels)
    if family == "depth":
        return
    for group in tables.groups:
        level = choice.levels.get(group.name, 0)
        for lower in range(level + 1, len(group.widths)) if group.block not in choice.dropped else ():
            yield make_plan(tables, choice.context, gone.items(), {**choice.levels, group.name: lower})
    if choice.context + 1 < len(tables.contexts):
        yield replace(choice, context=choice.context + 1)


def greedy_search(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: CountingScorer, evaluations: int, seed: int
) -> BestPlan | None:
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
    best: BestPlan | None = None
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
    scorer: CountingScorer,
    each: int,
    rng: np.random.Generator,
    end: int,
    must_end: bool,
) -> BestPlan | None:
    """None where it ends outside the limits. Past `end` it stops with nothing, or goes on without a choice."""
    primary = next(iter(limits))
    choice, loss = Plan(), tables.dense_loss
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
    return BestPlan(choice, ORDERS[0], scorer(choice))


def _saves(tables: Tables, resource: str, before: Plan, after: Plan) -> bool:
    return cost(tables, after, resource) < cost(tables, before, resource) - 1e-6


def _num_changes(choice: Plan) -> int:
    return len(choice.dropped) + sum(choice.levels.values()) + choice.context
