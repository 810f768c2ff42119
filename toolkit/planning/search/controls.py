"""Holds two controls that the search is compared with: random plans, and a greedy descent with as many scores."""

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
    """Returns the best of `evaluations` random plans that just hold the limits; None if the family has no such plan."""
    if minimise_loss(tables, limits, family) is None:
        return None
    rng = np.random.default_rng(seed)
    end = scorer.spent + evaluations
    best: BestPlan | None = None
    repeats = 0
    while scorer.spent < end and repeats < MOST_DEAD_ENDS:  # the family may have fewer than `evaluations` plans
        before = scorer.spent
        choice = random_choice(tables, limits, family, rng)
        loss = scorer(choice)
        repeats = repeats + 1 if scorer.spent == before else 0
        if best is None or loss < best.loss:
            best = BestPlan(choice, ORDERS[0], loss)
    return best


def random_choice(tables: Tables, limits: Limits, family: PlanFamily, rng: np.random.Generator) -> Plan:
    """Returns a plan of random single changes, made one by one until the limits hold.

    Starts again where no change is left. After `MOST_DEAD_ENDS` starts it returns the plan that takes the least of the
    first limit's resource.
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
    """Yields every plan that cuts one thing more than `choice`.

    That is a block (with each bypass in its place, or with none), a bypass (for a smaller one or for none), a group (to
    each of its smaller widths), or the stream (to its next width).
    """
    removed = removed_by(choice)
    if family != "width":
        for name, bypass in removals(tables):
            is_new = name not in removed and len(removed) + 1 < len(tables.blocks)
            current = removed.get(name)
            is_less = current is not None and (bypass is None or bypass > current)
            if is_new or is_less:
                yield make_plan(tables, choice.context, {**removed, name: bypass}.items(), choice.levels)
    if family == "depth":
        return
    for group in tables.groups:
        level = choice.levels.get(group.name, 0)
        for lower in range(level + 1, len(group.widths)) if group.block not in choice.dropped else ():
            yield make_plan(tables, choice.context, removed.items(), {**choice.levels, group.name: lower})
    if choice.context + 1 < len(tables.contexts):
        yield replace(choice, context=choice.context + 1)


def greedy_search(
    tables: Tables, limits: Limits, family: PlanFamily, scorer: CountingScorer, evaluations: int, seed: int
) -> BestPlan | None:
    """Returns the best plan of greedy descents, or None if the family has no plan within the limits.

    A descent makes, at every step, the change that adds the least loss for what it saves among some random changes,
    until the limits hold. The number of changes scored at a step is `evaluations` divided by the number of steps that a
    random plan takes. Evaluations that one descent leaves over are spent on further descents.
    """
    if minimise_loss(tables, limits, family) is None:
        return None
    rng = np.random.default_rng(seed)
    steps = max(1, round(np.mean([_num_changes(random_choice(tables, limits, family, rng)) for _ in range(20)])))
    per_step = max(1, evaluations // steps)
    end = scorer.spent + evaluations
    best: BestPlan | None = None
    repeats = 0
    while repeats < MOST_DEAD_ENDS and (scorer.spent < end or best is None):
        before = scorer.spent
        result = _descent(tables, limits, family, scorer, per_step, rng, end, must_end=best is None)
        if result is not None and (best is None or result.loss < best.loss):
            best = result
        repeats = repeats + 1 if scorer.spent == before else 0
    return best


def _descent(
    tables: Tables,
    limits: Limits,
    family: PlanFamily,
    scorer: CountingScorer,
    per_step: int,
    rng: np.random.Generator,
    end: int,
    must_end: bool,
) -> BestPlan | None:
    """Returns the plan of one greedy descent, or None if no change is left before the limits hold.

    When `end` scores are spent it returns None too, or, with `must_end`, makes one random change per step.
    """
    primary = next(iter(limits))
    choice, loss = Plan(), tables.dense_loss
    while not fits(tables, limits, choice):
        options = [plan for plan in single_changes(tables, family, choice) if _saves(tables, primary, choice, plan)]
        is_over = scorer.spent >= end
        if not options or (is_over and not must_end):
            return None
        tried = [options[index] for index in rng.permutation(len(options))[: 1 if is_over else per_step]]
        now, before = cost(tables, choice, primary), loss
        scores = {plan: scorer(plan) for plan in tried}
        choice = min(scores, key=lambda plan: (scores[plan] - before) / (now - cost(tables, plan, primary)))
        loss = scores[choice]
    return BestPlan(choice, ORDERS[0], scorer(choice))


def _saves(tables: Tables, resource: str, before: Plan, after: Plan) -> bool:
    return cost(tables, after, resource) < cost(tables, before, resource) - 1e-6


def _num_changes(choice: Plan) -> int:
    return len(choice.dropped) + sum(choice.levels.values()) + choice.context
