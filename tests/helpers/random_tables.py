"""Made-up tables, and the optimum by trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from toolkit.measure.results import MeasurementKey
from toolkit.planning.search.refine import fits
from toolkit.planning.tables import (
    Context,
    Plan,
    PlanBlock,
    PlanBypass,
    PlanCosts,
    PlanGroup,
    Removal,
    Tables,
    latency_of,
    make_plan,
    removals,
)
from toolkit.record.plan import Rank

LATENCY = latency_of(MeasurementKey(device="cpu", batch_size=1))
RESOURCES = (LATENCY, "macs", "params")


def random_tables(seed: int, num_blocks: int = 6, num_widths: int = 4, num_contexts: int = 1) -> Tables:
    """One group of `num_widths` widths in each block; losses do not fall with width, nor does anything else help."""
    rng = np.random.default_rng(seed)
    names = [f"blocks.{index}" for index in range(num_blocks)]
    groups = tuple(
        PlanGroup(
            name=f"{name}.mlp",
            kind="mlp",
            block=name,
            widths=tuple(8 * (num_widths - level) for level in range(num_widths)),
            losses=(0.0, *rng.normal(0.1, 0.1, num_widths - 1).tolist()),
        )
        for name in names
    )
    return Tables(
        dense_loss=1.0,
        blocks=tuple(PlanBlock(name=name, loss=float(rng.exponential(0.2))) for name in names),
        groups=groups,
        contexts=tuple(_context(rng, names, groups, index) for index in range(num_contexts)),
    )


def with_bypasses(tables: Tables, ranks: Sequence[Rank] = ("full", 16), seed: int = 0) -> Tables:
    """The same, where maps can take the places of all blocks but the last: the dearer, the less they lose."""
    rng = np.random.default_rng(seed)

    def options(block: PlanBlock) -> tuple[PlanBypass, ...]:
        losses = block.loss * np.sort(rng.uniform(0.1, 0.9, len(ranks)))
        return tuple(PlanBypass(rank=rank, loss=float(loss)) for rank, loss in zip(ranks, losses, strict=True))

    def costs(full: PlanCosts) -> tuple[PlanCosts, ...]:
        shares = np.sort(rng.uniform(0.02, 0.4, len(ranks)))[::-1]
        return tuple({key: float(share) * value for key, value in full.items()} for share in shares)

    blocks = [block.model_copy(update={"bypasses": options(block)}) for block in tables.blocks[:-1]]
    contexts = [
        context.model_copy(update={"bypasses": {one.name: costs(context.blocks[one.name]) for one in blocks}})
        for context in tables.contexts
    ]
    update = {"blocks": (*blocks, tables.blocks[-1]), "contexts": tuple(contexts)}
    return Tables.model_validate(tables.model_copy(update=update).model_dump())


def with_losses(tables: Tables, factor: float, seed: int) -> Tables:
    """The same, where changes add other losses, all of them above 0."""
    rng = np.random.default_rng(seed)
    blocks = tuple(block.model_copy(update={"loss": factor * float(rng.uniform(0.1, 0.5))}) for block in tables.blocks)
    own = np.random.default_rng([seed, 1])
    blocks = tuple(
        block.model_copy(
            update={
                "bypasses": tuple(
                    one.model_copy(update={"loss": factor * float(own.uniform(0.02, 0.1))}) for one in block.bypasses
                )
            }
        )
        for block in blocks
    )
    groups = tuple(
        group.model_copy(update={"losses": (0.0, *(factor * rng.uniform(0.05, 0.2, len(group.losses) - 1)).tolist())})
        for group in tables.groups
    )
    return tables.model_copy(update={"blocks": blocks, "groups": groups})


def _context(rng: np.random.Generator, names: list[str], groups: tuple[PlanGroup, ...], index: int) -> Context:
    scale = 1.0 - 0.25 * index
    blocks: dict[str, PlanCosts] = {
        name: {key: float(scale * rng.uniform(0.1, 0.2)) for key in RESOURCES} for name in names
    }

    def width(group: PlanGroup, level: int) -> PlanCosts:
        share = 0.7 * level / len(group.widths)
        assert group.block is not None
        return {key: -share * value * float(rng.uniform(0.7, 1.0)) for key, value in blocks[group.block].items()}

    return Context(
        label=f"stream {index}",
        widths={"embed": 64 - 16 * index} if index else {},
        loss=0.3 * index,
        rest=dict.fromkeys(RESOURCES, 0.1),
        blocks=blocks,
        groups={
            group.name: (dict.fromkeys(RESOURCES, 0.0), *(width(group, level) for level in range(1, len(group.widths))))
            for group in groups
        },
    )


def all_choices(tables: Tables) -> Iterator[Plan]:
    """Every plan: each block gone in each of its ways or with each of its widths, one kept at least, per context."""
    ways: list[list[Removal | tuple[str, str, int]]] = []
    for block, group in zip(tables.blocks, tables.groups, strict=True):
        removed = [one for one in removals(tables) if one[0] == block.name]
        ways.append([*removed, *((block.name, group.name, level) for level in range(len(group.widths)))])
    for context in range(len(tables.contexts)):
        for combination in itertools.product(*ways):
            gone = [one for one in combination if len(one) == 2]
            kept = [one for one in combination if len(one) == 3]
            if kept:
                yield make_plan(tables, context, gone, {group: level for _, group, level in kept})


def feasible(tables: Tables, limits: Mapping[str, float]) -> list[Plan]:
    return [choice for choice in all_choices(tables) if fits(tables, limits, choice)]
