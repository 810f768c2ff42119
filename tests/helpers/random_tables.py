"""Made-up tables, and the optimum by trying everything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from toolkit.measure.results import MeasurementKey
from toolkit.planning.search.refine import fits
from toolkit.planning.tables import Context, Plan, PlanBlock, PlanCosts, PlanGroup, Tables, latency_of, make_plan

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


def with_losses(tables: Tables, factor: float, seed: int) -> Tables:
    """The same, where changes add other losses, all of them above 0."""
    rng = np.random.default_rng(seed)
    blocks = tuple(block.model_copy(update={"loss": factor * float(rng.uniform(0.1, 0.5))}) for block in tables.blocks)
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
    """Every plan: each block dropped or with each of its widths, at least one of them kept, in every context."""
    levels = range(-1, len(tables.groups[0].widths))
    for context in range(len(tables.contexts)):
        for combination in itertools.product(levels, repeat=len(tables.blocks)):
            dropped = [block.name for block, level in zip(tables.blocks, combination, strict=True) if level < 0]
            if len(dropped) < len(tables.blocks):
                named = zip(tables.groups, combination, strict=True)
                yield make_plan(tables, context, dropped, {group.name: level for group, level in named if level >= 0})


def feasible(tables: Tables, limits: Mapping[str, float]) -> list[Plan]:
    return [choice for choice in all_choices(tables) if fits(tables, limits, choice)]
