"""Plan recipes: from compression families, or from tables and a budget. Plain values in, plain values out; no torch."""

from __future__ import annotations

from typing import Final

from toolkit.base.errors import PlanError
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.search.refine import nearest
from toolkit.planning.search.solver import PlanFamily, minimise_loss
from toolkit.planning.tables import Drops, Plan, Tables, drops_of, halves, in_runs, widths_of
from toolkit.record.plan import Rank
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Importance, WidthRepair
from toolkit.stages.settings import Stage

IMPORTANCE: Final[Importance] = "obs"  # what chooses the channels of every plan


def solve(
    tables: Tables, budget: Budget, device: str, family: PlanFamily = "combined", dense_latency_s: float | None = None
) -> Plan:
    """Returns the plan of least added loss within the budget: exact for additive tables, before any refinement.

    `device` is where the latencies of the tables were measured. `dense_latency_s`, at the budget's batch size, is
    needed for limits in milliseconds alone.

    Raises:
        PlanError: no plan of the family holds the budget; says what the nearest feasible one is.
    """
    limits = budget.ratios(device, dense_latency_s)
    found = minimise_loss(tables, limits, family)
    if found is None:
        raise PlanError(_infeasible(tables, budget, device, family, dense_latency_s))
    return found


def stages_of(tables: Tables, choice: Plan, order: str, repair: WidthRepair = "closed_form") -> tuple[Stage, ...]:
    """The cutting stages of a plan; `repair` is that of the width stage.

    Neighbours that go share a stage where the same is put in their places.
    """
    drops, widths = drops_of(tables, choice), widths_of(tables, choice)
    width = (ChannelPrune(widths=widths, importance=IMPORTANCE, repair=repair),) if widths else ()
    first, last = halves(drops, order, bool(widths))
    return (*_drop_stages(first), *width, *_drop_stages(last))


def _drop_stages(drops: Drops) -> tuple[BlockDrop, ...]:
    return tuple(drop_stage(rank, names) for rank, names in in_runs(drops))


def drop_stage(rank: Rank | None, blocks: tuple[str, ...]) -> BlockDrop:
    """Returns the stage that drops the blocks, with bypasses of that rank in their places, or nothing."""
    if rank is None:
        return BlockDrop(blocks=blocks)
    return BlockDrop(blocks=blocks, repair="fold_and_bypass", rank=None if rank == "full" else rank)


def _infeasible(tables: Tables, budget: Budget, device: str, family: PlanFamily, dense_latency_s: float | None) -> str:
    limits = budget.ratios(device, dense_latency_s)
    reached = nearest(tables, limits, family)
    others = ", ".join(map(str, budget.limits[1:]))
    within = f" within {others}" if others else ""
    if reached is None:  # the others alone are too much
        others_alone = budget.model_copy(update={"limits": budget.limits[1:]})
        return _infeasible(tables, others_alone, device, family, dense_latency_s)
    return (
        f"no plan of family {family} reaches {budget.primary}{within}; the nearest feasible budget is "
        f"{in_units(budget.primary, reached + 5e-4, dense_latency_s)}{within}"
    )


def in_units(limit: Limit, ratio: float, dense_latency_s: float | None) -> str:
    """A share of the dense model's, as the user would give it."""
    if limit.unit == "ms" and dense_latency_s is not None:
        return f"{limit.resource}={1e3 * dense_latency_s * ratio:.3f}ms"
    return f"{limit.resource}={ratio:.3f}"
