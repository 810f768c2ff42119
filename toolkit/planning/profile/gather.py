"""The tables of a model: every single change scored and costed once, kept on disk as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import numpy as np

from toolkit.base.console import Console
from toolkit.planning.profile.costs import CostProfiler
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.profile.space import Space
from toolkit.planning.profile.store import Store
from toolkit.planning.search.controls import random_choice
from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import (
    MACS,
    PARAMS,
    Context,
    Plan,
    PlanBlock,
    PlanCosts,
    PlanGroup,
    Tables,
    Width,
    cost,
    dropped_in_order,
    latency_of,
    widths_of,
)
from toolkit.stages.channel_prune.settings import Heads

FIT_PLANS: dict[PlanFamily, int] = {"width": 8, "combined": 5}

FIT_SEED = 20261

COUNTED_EVERY = 4  # of them is counted, to see whether counts add up

FIT_MACS = (0.25, 0.9)  # the random plans' shares of the dense model's multiply-adds


def as_text(width: Width) -> str:
    return f"{width.heads} x {width.head_dim or 'all'}" if isinstance(width, Heads) else str(width)


def gather_losses(space: Space, engine: Callable[[], PlanScorer], store: Store, console: Console) -> dict[str, float]:
    """Loss on the scoring split after each single change and its repair, by the change's name; `dense` among them."""
    jobs: dict[str, Callable[[], float]] = {"dense": lambda: engine().dense_loss()}
    for block in space.blocks:
        jobs[drop_name(block)] = partial(_loss_of, engine, [block], {})
    for group, widths in space.widths.items():
        jobs |= {width_name(group, width): partial(_loss_of, engine, [], {group: width}) for width in widths[1:]}
    for label, stream in space.streams.items():
        if stream:
            jobs[stream_name(label)] = partial(_loss_of, engine, [], stream)
    missing = [name for name in jobs if name not in store.entries]
    with _bar(console, "scoring single changes", len(missing)) as advance:
        for name in missing:
            store.get(name, partial(_in_list, jobs[name]))
            advance()
    return {name: store.entries[name][0] for name in jobs}


def _loss_of(engine: Callable[[], PlanScorer], dropped: list[str], widths: Mapping[str, Width]) -> float:
    return engine().loss_of(dropped, widths, "depth_then_width")


def _in_list(find: Callable[[], float]) -> list[float]:
    return [find()]


def drop_name(block: str) -> str:
    return f"drop | {block}"


def width_name(group: str, width: Width) -> str:
    return f"width | {group} | {as_text(width)}"


def stream_name(label: str) -> str:
    return f"stream | {label}"


def gather_costs(space: Space, profiler: CostProfiler, console: Console) -> Tables:
    """What every change costs, with the correction for whole models; all losses are 0."""
    groups = tuple(
        PlanGroup(
            name=name,
            kind=space.groups[name].kind,
            block=space.home(name),
            widths=widths,
            losses=(0.0,) * len(widths),
        )
        for name, widths in space.widths.items()
    )
    contexts = []
    with _bar(console, "timing parts", len(space.streams)) as advance:
        for label, stream in space.streams.items():
            contexts.append(_context(space, profiler, label, stream))
            advance()
    blocks = tuple(PlanBlock(name=name, loss=0.0) for name in space.blocks)
    raw = Tables(dense_loss=0.0, blocks=blocks, groups=groups, contexts=tuple(contexts))
    plans = fit_plans(raw)
    raw = raw.model_copy(
        update={"counts_add_up": all(_adds_up(raw, plan, profiler) for plan in plans[::COUNTED_EVERY])}
    )
    return corrected(raw, fit_widths(raw, plans, profiler, console)) if profiler.timing.keys else raw


def _adds_up(raw: Tables, plan: Plan, profiler: CostProfiler) -> bool:
    gone, widths = dropped_in_order(raw, plan), widths_of(raw, plan)

    def counted() -> list[float]:
        counts = profiler.counts(gone, widths)
        return [counts[MACS], counts[PARAMS]]

    known = profiler.store.get(f"counts | {described(raw, plan)}", counted)
    return all(abs(cost(raw, plan, key) - value) < 1e-6 for key, value in zip((MACS, PARAMS), known, strict=True))


def with_losses(costs: Tables, losses: Mapping[str, float]) -> Tables:
    """Tables as the solver takes them. `losses` are what `gather_losses` gives."""
    dense = losses["dense"]
    groups = tuple(
        one.model_copy(
            update={"losses": (0.0, *(losses[width_name(one.name, width)] - dense for width in one.widths[1:]))}
        )
        for one in costs.groups
    )
    contexts = tuple(
        one.model_copy(update={"loss": losses[stream_name(one.label)] - dense if one.widths else 0.0})
        for one in costs.contexts
    )
    blocks = tuple(PlanBlock(name=one.name, loss=losses[drop_name(one.name)] - dense) for one in costs.blocks)
    return costs.model_copy(update={"dense_loss": dense, "blocks": blocks, "groups": groups, "contexts": contexts})


def _context(space: Space, profiler: CostProfiler, label: str, stream: dict[str, int]) -> Context:
    blocks = {name: profiler.block(label, name) for name in space.blocks}
    zero = dict.fromkeys(profiler.timing.resources, 0.0)
    groups = {
        name: (zero, *(profiler.width(label, name, width) for width in widths[1:]))
        for name, widths in space.widths.items()
    }
    context = Context(label=label, widths=stream, loss=0.0, rest=profiler.bare(label), blocks=blocks, groups=groups)
    return anchored(context, profiler.whole(label), {name: space.home(name) for name in groups})


def anchored(context: Context, whole: PlanCosts, homes: Mapping[str, str | None]) -> Context:
    """With blocks, and the widths in them, scaled so that the sum of all is what the whole model takes."""
    scales = {}
    for key, rest in context.rest.items():
        total = sum(costs[key] for costs in context.blocks.values())
        scales[key] = (whole[key] - rest) / total if total else 1.0

    def scaled(costs: PlanCosts) -> PlanCosts:
        return {key: value * scales[key] for key, value in costs.items()}

    return context.model_copy(
        update={
            "blocks": {name: scaled(costs) for name, costs in context.blocks.items()},
            "groups": {
                name: widths if homes[name] is None else tuple(map(scaled, widths))
                for name, widths in context.groups.items()
            },
        }
    )


def fit_plans(raw: Tables) -> list[Plan]:
    """Random plans from little to much cut, the same ones on every call: most of widths alone, some of both axes."""
    rng = np.random.default_rng(FIT_SEED)
    plans = []
    for family, number in FIT_PLANS.items():
        for limit in np.linspace(*FIT_MACS, number):
            plans.append(random_choice(raw, {MACS: float(limit)}, family, rng))
    return plans


def fit_widths(raw: Tables, plans: list[Plan], profiler: CostProfiler, console: Console) -> dict[str, float]:
    """By resource, the share of what widths save in their blocks that they save in whole models.

    Least squares of relative errors, on plans that are used for nothing else.
    """
    with _bar(console, "timing whole models", len(plans)) as advance:
        measured = []
        for number, plan in enumerate(plans):
            name = f"plan {number} | {described(raw, plan)}"
            measured.append(profiler.store.get(name, partial(_time, raw, plan, profiler)))
            advance()
    found = {}
    for place, key in enumerate(map(latency_of, profiler.timing.keys)):
        wanted = np.array([values[place] for values in measured])
        saved = np.array([_saved(raw, plan, key) for plan in plans])
        missed = wanted - np.array([cost(raw, plan, key) for plan in plans])
        squares = float(((saved / wanted) ** 2).sum())
        found[key] = 1.0 + float((saved * missed / wanted**2).sum()) / squares if squares else 1.0
    return found


def _saved(raw: Tables, choice: Plan, resource: str) -> float:
    groups = raw.contexts[choice.context].groups
    return sum(groups[name][level][resource] for name, level in choice.levels.items())


def corrected(raw: Tables, scales: Mapping[str, float]) -> Tables:
    """With what widths add times a scale, by resource."""

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
    """So that a plan of other tables is not taken for this one."""
    widths = {name: as_text(width) for name, width in widths_of(raw, plan).items()}
    return json.dumps([sorted(plan.dropped), widths], sort_keys=True)


def _time(raw: Tables, plan: Plan, profiler: CostProfiler) -> list[float]:
    model = profiler.built(sorted(plan.dropped), widths_of(raw, plan))
    return [profiler.latency_ratio(model, key) for key in profiler.timing.keys]


@contextmanager
def _bar(console: Console, text: str, total: int) -> Iterator[Callable[[], None]]:
    """Nothing is shown where there is nothing to do."""
    if not total:
        yield lambda: None
        return
    with console.progress(text, total) as bar:
        yield bar.advance
