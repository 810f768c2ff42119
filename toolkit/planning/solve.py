"""Solves tables for a budget, and turns a plan into the stages of a recipe. Nothing here imports torch."""

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

    device: the device that the latencies of the tables were measured on.
    family: the axes that may be cut: `depth`, `width` or `combined`.
    dense_latency_s: the dense model's latency at the budget's batch size; only limits in milliseconds need it.

    Raises:
        PlanError: no plan of the family holds the budget; the message names the nearest budget that one holds.
    """
    limits = budget.ratios(device, dense_latency_s)
    optimum = minimise_loss(tables, limits, family)
    if optimum is None:
        raise PlanError(_infeasible(tables, budget, device, family, dense_latency_s))
    return optimum


def stages_of(tables: Tables, choice: Plan, order: str, repair: WidthRepair = "closed_form") -> tuple[Stage, ...]:
    """Returns the stages that apply a plan.

    Blocks that go one after the other share a stage if the same stand-in takes their places.

    order: the order of the depth and width stages, one of `ORDERS`.
    repair: the repair of the width stage.
    """
    drops, widths = drops_of(tables, choice), widths_of(tables, choice)
    width = (ChannelPrune(widths=widths, importance=IMPORTANCE, repair=repair),) if widths else ()
    first, last = halves(drops, order, bool(widths))
    return (*_drop_stages(first), *width, *_drop_stages(last))


def _drop_stages(drops: Drops) -> tuple[BlockDrop, ...]:
    return tuple(drop_stage(rank, names) for rank, names in in_runs(drops))


def drop_stage(rank: Rank | None, blocks: tuple[str, ...]) -> BlockDrop:
    """Returns the stage that drops the blocks and puts bypasses of that rank in their places.

    rank: the rank of the bypasses; None puts nothing in the place of a block.
    """
    if rank is None:
        return BlockDrop(blocks=blocks)
    return BlockDrop(blocks=blocks, repair="fold_and_bypass", rank=None if rank == "full" else rank)


def _infeasible(tables: Tables, budget: Budget, device: str, family: PlanFamily, dense_latency_s: float | None) -> str:
    limits = budget.ratios(device, dense_latency_s)
    nearest_share = nearest(tables, limits, family)
    others = ", ".join(map(str, budget.limits[1:]))
    within = f" within {others}" if others else ""
    if nearest_share is None:  # no plan holds the other limits alone
        others_alone = budget.model_copy(update={"limits": budget.limits[1:]})
        return _infeasible(tables, others_alone, device, family, dense_latency_s)
    return (
        f"no plan of family {family} reaches {budget.primary}{within}; the nearest feasible budget is "
        f"{in_units(budget.primary, nearest_share + 5e-4, dense_latency_s)}{within}"
    )


def in_units(limit: Limit, ratio: float, dense_latency_s: float | None) -> str:
    """Returns a budget in the limit's unit, such as `latency=12.000ms` or `macs=0.500`.

    ratio: the budget as a share of what the dense model takes.
    dense_latency_s: the dense model's latency in seconds; it is read only for a limit in milliseconds.
    """
    if limit.unit == "ms" and dense_latency_s is not None:
        return f"{limit.resource}={1e3 * dense_latency_s * ratio:.3f}ms"
    return f"{limit.resource}={ratio:.3f}"
