"""Plan recipes: from compression families, or from tables and a budget. Plain values in, plain values out; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from toolkit.errors import PlanError
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.search import nearest
from toolkit.planning.solver import PlanFamily, minimise_loss
from toolkit.planning.tables import Choice, Tables, dropped_in_order, drops_before, widths_of
from toolkit.recipe import Measure, Recipe
from toolkit.stage_configs import Align, BlockDrop, ChannelPrune, Recover, Reinitialise, Stage
from toolkit.zoo.config import ZooModel

Order = Literal["depth_then_width", "width_then_depth"]


def compose(
    *,
    task: str,
    depth: BlockDrop | Sequence[BlockDrop] | None = None,
    width: ChannelPrune | Sequence[ChannelPrune] | None = None,
    order: Order = "depth_then_width",
    recover: Recover | Align | None = None,
    name: str | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    measure: Measure | None = None,
    model: ZooModel | None = None,
) -> Recipe:
    """Compose block-drop and channel stages, in the given order, into the depth, width or combined family.

    `recover` comes last. `name` defaults to `depth_only`, `width_only` or the order. `model` goes with task `zoo`.

    Raises:
        ValueError: neither `depth` nor `width` is given, or the order is unknown.
    """
    depth_stages, width_stages = _several(depth), _several(width)
    if not depth_stages and not width_stages:
        raise ValueError("nothing to compose: give depth (a BlockDrop), width (a ChannelPrune) or both")
    if order == "depth_then_width":
        stages = depth_stages + width_stages
    elif order == "width_then_depth":
        stages = width_stages + depth_stages
    else:
        raise ValueError(f"order {order!r} is unknown; choose depth_then_width or width_then_depth")
    family = order if depth_stages and width_stages else "depth_only" if depth_stages else "width_only"
    return Recipe(
        name=name or family,
        task=task,
        seed=seed,
        device=device,
        model=model,
        stages=stages if recover is None else (*stages, recover),
        measure=measure or Measure(),
    )


def solve(
    tables: Tables, budget: Budget, family: PlanFamily = "combined", dense_latency_s: float | None = None
) -> Choice:
    """The plan of least added loss within the budget: exact for additive tables, before any refinement.

    `dense_latency_s`, at the budget's batch size, is needed for limits in milliseconds alone.

    Raises:
        PlanError: no plan of the family holds the budget; says what the nearest feasible one is.
    """
    limits = budget.ratios(dense_latency_s)
    found = minimise_loss(tables, limits, family)
    if found is None:
        raise PlanError(_infeasible(tables, budget, family, dense_latency_s))
    return found


def stages_of(tables: Tables, choice: Choice, order: str) -> tuple[Stage, ...]:
    """The cutting stages of a plan."""
    gone, widths = dropped_in_order(tables, choice), widths_of(tables, choice)
    width = (ChannelPrune(widths=widths),) if widths else ()
    half = drops_before(order, len(gone)) if widths else len(gone)
    return (*_drops(gone[:half]), *width, *_drops(gone[half:]))


def _drops(blocks: Sequence[str]) -> tuple[BlockDrop, ...]:
    return (BlockDrop(blocks=tuple(blocks)),) if blocks else ()


def _infeasible(tables: Tables, budget: Budget, family: PlanFamily, dense_latency_s: float | None) -> str:
    limits = budget.ratios(dense_latency_s)
    reached = nearest(tables, limits, family)
    others = ", ".join(map(str, budget.limits[1:]))
    within = f" within {others}" if others else ""
    if reached is None:  # the others alone are too much
        return _infeasible(tables, budget.model_copy(update={"limits": budget.limits[1:]}), family, dense_latency_s)
    return (
        f"no plan of family {family} reaches {budget.primary}{within}; the nearest feasible budget is "
        f"{in_units(budget.primary, reached + 5e-4, dense_latency_s)}{within}"
    )


def in_units(limit: Limit, ratio: float, dense_latency_s: float | None) -> str:
    """A share of the dense model's, as the user would give it."""
    if limit.unit == "ms" and dense_latency_s is not None:
        return f"{limit.resource}={1e3 * dense_latency_s * ratio:.3f}ms"
    return f"{limit.resource}={ratio:.3f}"


def _several(given: Stage | Sequence[Stage] | None) -> tuple[Stage, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, (BlockDrop, ChannelPrune, Recover, Align, Reinitialise)) else tuple(given)
