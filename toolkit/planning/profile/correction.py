"""Fits how much of what widths save in their blocks they also save in whole models, on random plans timed as wholes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np

from toolkit.base.console import Console
from toolkit.planning.profile.costs import CostProfiler
from toolkit.planning.search.controls import random_choice
from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import (
    MACS,
    PARAMS,
    Plan,
    PlanCosts,
    Tables,
    Width,
    cost,
    drops_of,
    latency_of,
    widths_of,
    without_bypasses,
)
from toolkit.stages.channel_prune.settings import Heads

FIT_PLANS: dict[PlanFamily, int] = {"width": 8, "combined": 5}

FIT_SEED = 20261

COUNTED_EVERY = 4  # every fourth of the random plans is counted, to see whether counts add up

FIT_MACS = (0.25, 0.9)  # the random plans' shares of the dense model's multiply-adds


def as_text(width: Width) -> str:
    """Returns a width in words, such as `64`, `3 x all` or `3 x 32` (heads times channels of a head)."""
    return f"{width.heads} x {width.head_dim or 'all'}" if isinstance(width, Heads) else str(width)


def adds_up(raw: Tables, plan: Plan, profiler: CostProfiler) -> bool:
    """Returns whether the plan's counted multiply-adds and parameters are the sums of the tables."""
    drops, widths = drops_of(raw, plan), widths_of(raw, plan)

    def counted() -> list[float]:
        counts = profiler.counts(drops, widths)
        return [counts[MACS], counts[PARAMS]]

    counts = profiler.store.get(f"counts | {described(raw, plan)}", counted)
    return all(abs(cost(raw, plan, key) - value) < 1e-6 for key, value in zip((MACS, PARAMS), counts, strict=True))


def fit_plans(raw: Tables) -> list[Plan]:
    """Returns random plans with multiply-adds from much to little of the dense model's, the same on every call.

    Most cut widths alone, some cut both axes. None has a bypass, because only the effect of widths is fitted.
    """
    raw = without_bypasses(raw)
    rng = np.random.default_rng(FIT_SEED)
    plans = []
    for family, number in FIT_PLANS.items():
        for limit in np.linspace(*FIT_MACS, number):
            plans.append(random_choice(raw, {MACS: float(limit)}, family, rng))
    return plans


def fit_widths(raw: Tables, plans: list[Plan], profiler: CostProfiler, console: Console) -> dict[str, float]:
    """Returns, for each latency, the share of the savings of widths in their blocks that whole models save too.

    The share is fitted by least squares of relative errors on `plans`, which are timed as whole models.
    """
    with shown(console, "timing whole models", len(plans)) as advance:
        measured = []
        for number, plan in enumerate(plans):
            name = f"plan {number} | {described(raw, plan)}"
            measured.append(profiler.store.get(name, partial(_time, raw, plan, profiler)))
            advance()
    shares = {}
    for index, key in enumerate(map(latency_of, profiler.timing.keys)):
        timed = np.array([values[index] for values in measured])
        saved = np.array([_saved(raw, plan, key) for plan in plans])
        missed = timed - np.array([cost(raw, plan, key) for plan in plans])
        squares = float(((saved / timed) ** 2).sum())
        shares[key] = 1.0 + float((saved * missed / timed**2).sum()) / squares if squares else 1.0
    return shares


def _saved(raw: Tables, choice: Plan, resource: str) -> float:
    groups = raw.contexts[choice.context].groups
    return sum(groups[name][level][resource] for name, level in choice.levels.items())


def corrected(raw: Tables, scales: Mapping[str, float]) -> Tables:
    """Returns the tables with the cost changes of all widths multiplied by a scale per resource (1 without one)."""

    def scaled(costs: PlanCosts) -> PlanCosts:
        return {key: value * scales.get(key, 1.0) for key, value in costs.items()}

    contexts = tuple(
        context.model_copy(
            update={"groups": {name: tuple(map(scaled, widths)) for name, widths in context.groups.items()}}
        )
        for context in raw.contexts
    )
    return raw.model_copy(update={"contexts": contexts})


def described(raw: Tables, plan: Plan) -> str:
    """Returns a text that names the plan's blocks and widths, so that it is the same only for the same plan."""
    widths = {name: as_text(width) for name, width in widths_of(raw, plan).items()}
    ranks = {name: rank for name, rank in drops_of(raw, plan).items() if rank is not None}
    return json.dumps([sorted(plan.dropped), widths, *([ranks] if ranks else [])], sort_keys=True)


def _time(raw: Tables, plan: Plan, profiler: CostProfiler) -> list[float]:
    model = profiler.built(drops_of(raw, plan), widths_of(raw, plan))
    return [profiler.latency_ratio(model, key) for key in profiler.timing.keys]


@contextmanager
def shown(console: Console, text: str, total: int) -> Iterator[Callable[[], None]]:
    """Yields a function that advances a bar of `total` units; shows no bar where `total` is 0."""
    if not total:
        yield lambda: None
        return
    with console.progress(text, total) as bar:
        yield bar.advance
