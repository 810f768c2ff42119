"""Bypasses beside keeping and dropping: the solver against trying everything, and what the search makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.random_tables import LATENCY, all_choices, feasible, random_tables, with_bypasses, with_losses
from toolkit.planning.search import solver
from toolkit.planning.search.controls import random_choice, random_search, single_changes
from toolkit.planning.search.refine import CountingScorer, fits, is_of, refine
from toolkit.planning.search.solver import minimise_cost, minimise_loss
from toolkit.planning.search.surrogate import Surrogate
from toolkit.planning.solve import stages_of
from toolkit.planning.tables import (
    Plan,
    PlanBlock,
    Tables,
    added_loss,
    cost,
    drops_of,
    make_plan,
    removals,
    without_bypasses,
)
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune

LIMITS = {LATENCY: 0.4}


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_of_all_plans(seed: int) -> None:
    """4 blocks, of which 3 can have 2 bypasses: with 3 widths each, 6 ** 3 * 4 plans a context."""
    tables = with_bypasses(random_tables(seed, num_blocks=4, num_widths=3, num_contexts=2), seed=seed)
    for limits in (LIMITS, {LATENCY: 0.35, "macs": 0.4}):
        found, plans = minimise_loss(tables, limits, "combined"), feasible(tables, limits)
        assert found is not None and found in plans
        assert added_loss(tables, found) == pytest.approx(min(added_loss(tables, one) for one in plans), abs=1e-9)
        depth = [added_loss(tables, one) for one in plans if is_of(one, "depth")]
        alone = minimise_loss(tables, limits, "depth")
        assert (alone is None) == (not depth)
        if alone is not None:
            assert is_of(alone, "depth") and added_loss(tables, alone) == pytest.approx(min(depth), abs=1e-9)


def test_bypasses_are_taken_where_they_pay_and_width_has_none() -> None:
    taken: set[str] = set()
    for seed in range(12):
        tables = with_bypasses(random_tables(seed), seed=seed)
        found, without = (minimise_loss(one, LIMITS, "combined") for one in (tables, without_bypasses(tables)))
        assert found is not None and without is not None
        assert added_loss(tables, found) <= added_loss(tables, without) + 1e-9
        taken |= {str(rank) for rank in drops_of(tables, found).values()}
        width = minimise_loss(tables, {LATENCY: 0.9}, "width")
        assert width is not None and not width.dropped and not width.bypassed
    assert taken == {"None", "full", "16"}


@pytest.mark.parametrize("seed", range(4))
def test_no_plan_is_below_the_bound_of_its_context(seed: int) -> None:
    tables = with_bypasses(random_tables(seed, num_blocks=4, num_widths=3, num_contexts=2), seed=seed)
    plans = feasible(tables, LIMITS)
    for context, programme in enumerate(solver._programmes(tables, LIMITS, "combined")):
        bound = tables.contexts[context].loss + programme.bound(solver._losses(tables))
        best = min(added_loss(tables, plan) for plan in plans if plan.context == context)
        assert best - 0.5 < bound <= best


def test_a_block_with_a_bypass_is_gone_and_one_stays() -> None:
    tables = with_bypasses(random_tables(0, num_blocks=3, num_widths=2))
    dear = tables.model_copy(update={"blocks": tuple(one.model_copy(update={"loss": 9.0}) for one in tables.blocks)})
    for one in (tables, dear):
        found = minimise_loss(one, {LATENCY: 0.32}, "depth")
        assert found is not None and len(found.dropped) < 3 and set(found.bypassed) <= found.dropped
    least = minimise_cost(tables, LATENCY, {}, "depth")
    assert least is not None and not least.bypassed and len(least.dropped) == 2


def test_a_block_goes_in_one_way_also_where_no_width_in_it_says_so() -> None:
    tables = with_bypasses(random_tables(0))
    gains = {"blocks.0": -3.0}

    def gaining(block: PlanBlock) -> PlanBlock:
        loss = gains.get(block.name, -1.0)
        bypasses = [one.model_copy(update={"loss": loss + 0.1}) for one in block.bypasses]
        return block.model_copy(update={"loss": loss, "bypasses": tuple(bypasses)})

    context = tables.contexts[0].model_copy(update={"groups": {}})
    update = {"blocks": tuple(map(gaining, tables.blocks)), "groups": (), "contexts": (context,)}
    found = minimise_loss(tables.model_copy(update=update), {LATENCY: 1.0}, "depth")
    assert found is not None and len(found.dropped) == 5 and not found.bypassed


def test_a_plan_is_what_it_says() -> None:
    tables = with_bypasses(random_tables(1, num_contexts=2))
    removed = {"blocks.1": 1, "blocks.3": None}
    choice = make_plan(tables, 1, removed.items(), {"blocks.1.mlp": 2, "blocks.2.mlp": 1, "blocks.3.mlp": 1})
    assert choice == Plan(1, frozenset(removed), {"blocks.2.mlp": 1}, {"blocks.1": 1})
    assert len({choice, make_plan(tables, 1, {**removed, "blocks.1": 0}.items(), choice.levels)}) == 2
    context, plain = tables.contexts[1], make_plan(tables, 1, dict.fromkeys(removed).items(), choice.levels)
    assert cost(tables, choice, "macs") - cost(tables, plain, "macs") == pytest.approx(
        context.bypasses["blocks.1"][1]["macs"]
    )
    block = tables.blocks[1]
    assert added_loss(tables, choice) - added_loss(tables, plain) == pytest.approx(block.bypasses[1].loss - block.loss)
    assert drops_of(tables, choice) == {"blocks.1": 16, "blocks.3": None}


def test_tables_survive_the_round_trip_and_those_without_bypasses_load() -> None:
    tables = with_bypasses(random_tables(2, num_contexts=2))
    assert Tables.model_validate_json(tables.model_dump_json()) == tables
    plain = random_tables(2, num_contexts=2)
    old = plain.model_dump(mode="json")
    for part in (*old["blocks"], *old["contexts"]):
        del part["bypasses"]
    assert Tables.model_validate_json(Tables.model_validate(old, strict=False).model_dump_json()) == plain
    assert without_bypasses(tables) == plain
    broken = tables.contexts[1].model_copy(update={"bypasses": {}}).model_dump()
    with pytest.raises(ValueError, match="context stream 1 must have a cost for each bypass"):
        Tables.model_validate({**tables.model_dump(), "contexts": (tables.contexts[0].model_dump(), broken)})


def test_a_plan_becomes_a_stage_for_each_run_of_blocks() -> None:
    tables = with_bypasses(random_tables(0, num_contexts=2))
    removed = {"blocks.0": None, "blocks.1": 1, "blocks.2": 1, "blocks.3": 0, "blocks.4": None}
    choice = make_plan(tables, 1, removed.items(), {"blocks.5.mlp": 2})
    width = ChannelPrune(widths={"embed": 48, "blocks.5.mlp": 16}, importance="obs")

    def low(*names: str) -> BlockDrop:
        return BlockDrop(blocks=names, repair="fold_and_bypass", rank=16)

    first, last = BlockDrop(blocks=("blocks.0",)), BlockDrop(blocks=("blocks.4",))
    full = BlockDrop(blocks=("blocks.3",), repair="fold_and_bypass")
    assert stages_of(tables, choice, "depth_then_width") == (first, low("blocks.1", "blocks.2"), full, last, width)
    stages = stages_of(tables, choice, "interleaved")
    assert stages == (first, low("blocks.1"), width, low("blocks.2"), full, last)


def test_random_plans_and_single_changes_have_bypasses() -> None:
    tables = with_bypasses(random_tables(3, num_contexts=2))
    rng = np.random.default_rng(0)
    plans = [random_choice(tables, {LATENCY: 0.5}, "combined", rng) for _ in range(60)]
    assert all(fits(tables, {LATENCY: 0.5}, plan) for plan in plans)
    assert any(plan.bypassed for plan in plans) and any(plan.dropped - set(plan.bypassed) for plan in plans)
    assert not any(plan.bypassed for plan in single_changes(tables, "width", Plan()))
    assert len(list(single_changes(tables, "depth", Plan()))) == len(removals(tables)) == 6 + 2 * 5
    held = make_plan(tables, 0, {"blocks.0": 0, "blocks.1": 1}.items(), {})
    after = {drops_of(tables, one).get("blocks.0") for one in single_changes(tables, "depth", held)}
    assert after == {"full", 16, None}
    own = [drops_of(tables, one) for one in single_changes(tables, "depth", held)]
    assert all(one != drops_of(tables, held) for one in own) and {one["blocks.1"] for one in own} == {16, None}


def test_the_search_finds_bypasses_and_random_search_is_within_the_limits() -> None:
    tables = with_bypasses(random_tables(4, num_blocks=4), seed=4)
    truth = with_losses(tables, 1.0, 4)

    def score(choice: Plan, _: str) -> float:
        return truth.dense_loss + added_loss(truth, choice)

    found = refine(tables, LIMITS, "combined", CountingScorer(score), 6)
    best = min(added_loss(truth, one) for one in all_choices(truth) if fits(truth, LIMITS, one))
    assert found is not None and found.loss - truth.dense_loss <= best + 0.1
    drawn = random_search(tables, LIMITS, "combined", CountingScorer(score), 10, 0)
    assert drawn is not None and fits(tables, LIMITS, drawn.choice)


def test_belief_learns_what_bypasses_add() -> None:
    tables = with_losses(with_bypasses(random_tables(1)), 1.0, 1)
    truth = with_losses(with_bypasses(random_tables(1)), 3.0, 1)
    rng = np.random.default_rng(0)
    plans = [random_choice(tables, {"macs": float(rng.uniform(0.3, 0.8))}, "combined", rng) for _ in range(40)]
    scores = {plan: truth.dense_loss + added_loss(truth, plan) for plan in plans[:12]}
    assert any(plan.bypassed for plan in scores)
    believed = Surrogate(tables, scores).believed()
    for plan in plans[12:]:
        assert added_loss(believed, plan) == pytest.approx(added_loss(truth, plan), rel=0.05)
    same = Surrogate(tables, {}).believed()
    for now, before in zip(same.blocks, tables.blocks, strict=True):
        assert [one.loss for one in now.bypasses] == pytest.approx([one.loss for one in before.bypasses])
