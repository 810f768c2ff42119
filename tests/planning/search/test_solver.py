"""The solver against trying everything, and what its families may do."""

from __future__ import annotations

import pytest

from tests.helpers.random_tables import LATENCY, feasible, random_tables
from toolkit.base.errors import PlanError
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.search.refine import nearest
from toolkit.planning.search.solver import minimise_loss
from toolkit.planning.solve import solve, stages_of
from toolkit.planning.tables import Plan, added_loss, cost
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune

LIMITS = {LATENCY: 0.5}


@pytest.mark.parametrize("seed", range(20))
def test_the_optimum_of_all_plans(seed: int) -> None:
    """6 blocks of 4 widths: 5 ** 6 plans."""
    tables = random_tables(seed)
    found = minimise_loss(tables, LIMITS, "combined")
    assert found is not None
    assert cost(tables, found, LATENCY) <= LIMITS[LATENCY] + 1e-9
    best = min(added_loss(tables, choice) for choice in feasible(tables, LIMITS))
    assert added_loss(tables, found) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_over_contexts_and_two_limits(seed: int) -> None:
    tables = random_tables(seed, num_blocks=4, num_widths=3, num_contexts=3)
    limits = {LATENCY: 0.45, "macs": 0.5}
    found = minimise_loss(tables, limits, "combined")
    choices = feasible(tables, limits)
    assert found is not None and found in choices
    assert added_loss(tables, found) == pytest.approx(min(added_loss(tables, choice) for choice in choices), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_never_worse_than_one_axis(seed: int) -> None:
    tables = random_tables(seed, num_contexts=2)
    both = minimise_loss(tables, LIMITS, "combined")
    assert both is not None
    for family in ("depth", "width"):
        single = minimise_loss(tables, LIMITS, family)
        if single is not None:
            assert added_loss(tables, both) <= added_loss(tables, single) + 1e-9
            assert not (single.dropped if family == "width" else single.levels or single.context)


def test_small_losses_count() -> None:
    """Losses of a converged model differ in the sixth digit; the solver's own tolerances must not swallow that."""
    tables = random_tables(0)
    small = tables.model_copy(
        update={
            "blocks": tuple(one.model_copy(update={"loss": one.loss * 1e-6}) for one in tables.blocks),
            "groups": tuple(
                one.model_copy(update={"losses": tuple(value * 1e-6 for value in one.losses)}) for one in tables.groups
            ),
        }
    )
    assert minimise_loss(small, LIMITS, "combined") == minimise_loss(tables, LIMITS, "combined")


def test_a_dropped_block_voids_the_widths_inside_it() -> None:
    tables = random_tables(1, num_contexts=2)
    found = minimise_loss(tables, {LATENCY: 0.3}, "combined")
    assert found is not None and found.dropped and found.levels
    assert not {f"{block}.mlp" for block in found.dropped} & set(found.levels)


def test_one_block_stays() -> None:
    tables = random_tables(2)
    least = nearest(tables, LIMITS, "depth")
    assert least == pytest.approx(0.1 + min(costs[LATENCY] for costs in tables.contexts[0].blocks.values()))


def test_an_impossible_budget_names_the_nearest() -> None:
    tables = random_tables(3)
    budget = Budget(limits=(Limit(resource="latency", value=0.01),))
    with pytest.raises(PlanError, match=r"no plan of family width reaches latency=0.01; .* budget is latency=0\.\d+"):
        solve(tables, budget, "cpu", "width")
    reached = nearest(tables, {LATENCY: 0.01}, "width")
    assert reached is not None
    feasible_budget = Budget(limits=(Limit(resource="latency", value=round(reached + 5e-4, 3)),))
    assert cost(tables, solve(tables, feasible_budget, "cpu", "width"), LATENCY) <= reached + 1e-3


def test_of_several_limits_the_one_that_stands_in_the_way_is_named() -> None:
    tables = random_tables(3)

    def limits(latency: float, macs: float) -> Budget:
        return Budget(limits=(Limit(resource="latency", value=latency), Limit(resource="macs", value=macs)))

    with pytest.raises(PlanError, match=r"reaches latency=0.01 within macs=0.5; .* is latency=0\.\d+ within macs=0.5$"):
        solve(tables, limits(0.01, 0.5), "cpu")
    with pytest.raises(PlanError, match=r"reaches macs=0.01; the nearest feasible budget is macs=0\.\d+$"):
        solve(tables, limits(0.5, 0.01), "cpu")


def test_milliseconds_are_of_the_dense_model() -> None:
    tables = random_tables(3)
    asked = Budget(limits=(Limit(resource="latency", value=6.0, unit="ms"),))
    assert solve(tables, asked, "cpu", dense_latency_s=0.012) == solve(
        tables, Budget(limits=(Limit(resource="latency", value=0.5),)), "cpu"
    )
    with pytest.raises(PlanError, match=r"is latency=\d\.\d+ms"):
        solve(tables, Budget(limits=(Limit(resource="latency", value=0.1, unit="ms"),)), "cpu", dense_latency_s=0.012)


def test_a_plan_becomes_stages() -> None:
    tables = random_tables(0, num_contexts=2)
    choice = Plan(1, frozenset({"blocks.3", "blocks.1"}), {"blocks.0.mlp": 2})
    width = ChannelPrune(widths={"embed": 48, "blocks.0.mlp": 16}, importance="obs")
    depth = BlockDrop(blocks=("blocks.1", "blocks.3"))
    assert stages_of(tables, choice, "depth_then_width") == (depth, width)
    assert stages_of(tables, choice, "width_then_depth") == (width, depth)
    first, last = BlockDrop(blocks=("blocks.1",)), BlockDrop(blocks=("blocks.3",))
    assert stages_of(tables, choice, "interleaved") == (first, width, last)
    assert stages_of(tables, Plan(), "depth_then_width") == ()
