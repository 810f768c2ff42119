"""Gathers the tables of a model: scores and costs every single change once, and keeps each number on disk at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from toolkit.base.console import Console
from toolkit.planning.profile.correction import (
    COUNTED_EVERY,
    adds_up,
    as_text,
    corrected,
    fit_plans,
    fit_widths,
    shown,
)
from toolkit.planning.profile.costs import CostProfiler
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.profile.space import Space
from toolkit.planning.profile.store import Store
from toolkit.planning.tables import (
    Context,
    Drops,
    PlanBlock,
    PlanBypass,
    PlanCosts,
    PlanGroup,
    Tables,
    Width,
)
from toolkit.record.plan import Rank


def gather_losses(space: Space, engine: Callable[[], PlanScorer], store: Store, console: Console) -> dict[str, float]:
    """Returns the loss on the scoring split after each single change and its repair, by the name of the change.

    The name `dense` holds the loss of the dense model.
    """
    jobs: dict[str, Callable[[], float]] = {"dense": lambda: engine().dense_loss()}
    for block in space.blocks:
        jobs[drop_name(block)] = partial(_loss_of, engine, {block: None}, {})
    for block, ranks in space.bypasses.items():
        jobs |= {bypass_name(block, rank): partial(_loss_of, engine, {block: rank}, {}) for rank in ranks}
    for group, widths in space.widths.items():
        jobs |= {width_name(group, width): partial(_loss_of, engine, {}, {group: width}) for width in widths[1:]}
    for label, stream in space.streams.items():
        if stream:
            jobs[stream_name(label)] = partial(_loss_of, engine, {}, stream)
    missing = [name for name in jobs if name not in store.entries]
    with shown(console, "scoring single changes", len(missing)) as advance:
        for name in missing:
            store.get(name, partial(_in_list, jobs[name]))
            advance()
    return {name: store.entries[name][0] for name in jobs}


def _loss_of(engine: Callable[[], PlanScorer], drops: Drops, widths: Mapping[str, Width]) -> float:
    return engine().loss_of(drops, widths, "depth_then_width")


def _in_list(find: Callable[[], float]) -> list[float]:
    return [find()]


def drop_name(block: str) -> str:
    """Returns the name under which the loss without the block is kept."""
    return f"drop | {block}"


def bypass_name(block: str, rank: Rank) -> str:
    """Returns the name under which the loss with a bypass in the place of the block is kept."""
    return f"bypass | {block} | {rank}"


def width_name(group: str, width: Width) -> str:
    """Returns the name under which the loss with that width of the group is kept."""
    return f"width | {group} | {as_text(width)}"


def stream_name(label: str) -> str:
    """Returns the name under which the loss with the stream of that context is kept."""
    return f"stream | {label}"


def gather_costs(space: Space, profiler: CostProfiler, console: Console) -> Tables:
    """Returns tables of what every change costs, corrected for whole models; all of their losses are 0."""
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
    work = "timing parts" if profiler.timing.keys else "counting parts"
    with shown(console, work, len(space.streams) * _num_costs(space)) as advance:
        for label, stream in space.streams.items():
            contexts.append(_context(space, profiler, label, stream, advance))
    blocks = tuple(_block(name, space.bypasses.get(name, ())) for name in space.blocks)
    raw = Tables(dense_loss=0.0, blocks=blocks, groups=groups, contexts=tuple(contexts))
    plans = fit_plans(raw)
    raw = raw.model_copy(update={"counts_add_up": all(adds_up(raw, plan, profiler) for plan in plans[::COUNTED_EVERY])})
    return corrected(raw, fit_widths(raw, plans, profiler, console)) if profiler.timing.keys else raw


def _block(name: str, ranks: tuple[Rank, ...]) -> PlanBlock:
    return PlanBlock(name=name, loss=0.0, bypasses=tuple(PlanBypass(rank=rank, loss=0.0) for rank in ranks))


def with_losses(costs: Tables, losses: Mapping[str, float]) -> Tables:
    """Returns the tables of costs with losses filled in.

    losses: the losses that `gather_losses` returns.
    """
    dense = losses["dense"]
    groups = tuple(
        group.model_copy(
            update={"losses": (0.0, *(losses[width_name(group.name, width)] - dense for width in group.widths[1:]))}
        )
        for group in costs.groups
    )
    contexts = tuple(
        context.model_copy(update={"loss": losses[stream_name(context.label)] - dense if context.widths else 0.0})
        for context in costs.contexts
    )

    def joined(block: PlanBlock) -> PlanBlock:
        ranks = [bypass.rank for bypass in block.bypasses]
        bypasses = tuple(PlanBypass(rank=rank, loss=losses[bypass_name(block.name, rank)] - dense) for rank in ranks)
        return PlanBlock(name=block.name, loss=losses[drop_name(block.name)] - dense, bypasses=bypasses)

    blocks = tuple(map(joined, costs.blocks))
    return costs.model_copy(update={"dense_loss": dense, "blocks": blocks, "groups": groups, "contexts": contexts})


def _num_costs(space: Space) -> int:
    """Returns how many costs `_context` asks for: the whole and the bare model, blocks, widths and bypasses."""
    widths = sum(len(widths) - 1 for widths in space.widths.values())
    return 2 + len(space.blocks) + widths + sum(map(len, space.bypasses.values()))


def _context(
    space: Space, profiler: CostProfiler, label: str, stream: dict[str, int], advance: Callable[[], None]
) -> Context:
    """Returns the costs of all parts of a context's model, and calls `advance` after each of them."""

    def done(costs: PlanCosts) -> PlanCosts:
        advance()
        return costs

    whole = done(profiler.whole(label))
    blocks = {name: done(profiler.block(label, name)) for name in space.blocks}
    zero = dict.fromkeys(profiler.timing.resources, 0.0)
    groups = {
        name: (zero, *(done(profiler.width(label, name, width)) for width in widths[1:]))
        for name, widths in space.widths.items()
    }
    context = Context(
        label=label,
        widths=stream,
        loss=0.0,
        rest=done(profiler.bare(label)),
        blocks=blocks,
        groups=groups,
        bypasses={
            name: tuple(done(profiler.bypass(label, name, rank)) for rank in ranks)
            for name, ranks in space.bypasses.items()
        },
    )
    return anchored(context, whole, {name: space.home(name) for name in groups})


def anchored(context: Context, whole: PlanCosts, homes: Mapping[str, str | None]) -> Context:
    """Returns the context with block costs scaled so that they and the rest sum to the costs of the whole model.

    The costs of bypasses, and of widths inside blocks, are scaled by the same factor.

    whole: the costs of the whole model.
    homes: the block that holds each group; None where no block does.
    """
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
            "bypasses": {name: tuple(map(scaled, costs)) for name, costs in context.bypasses.items()},
        }
    )
