"""Tables corrected by scores of whole plans."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.helpers.random_tables import random_tables, with_losses
from toolkit.planning.search.controls import random_choice
from toolkit.planning.search.surrogate import Surrogate
from toolkit.planning.tables import Plan, Tables, added_loss


def plans_of(tables: Tables, number: int, seed: int) -> list[Plan]:
    rng = np.random.default_rng(seed)
    return [random_choice(tables, {"macs": float(rng.uniform(0.3, 0.8))}, "combined", rng) for _ in range(number)]


def scores_of(truth: Tables, plans: list[Plan]) -> dict[Plan, float]:
    return {plan: truth.dense_loss + added_loss(truth, plan) for plan in plans}


def test_without_scores_the_tables_stay() -> None:
    tables = with_losses(random_tables(0, num_contexts=2), 1.0, 0)
    for scores in ({}, {Plan(): tables.dense_loss}):
        believed = Surrogate(tables, scores).believed()
        assert [block.loss for block in believed.blocks] == pytest.approx([block.loss for block in tables.blocks])
        for now, before in zip(believed.groups, tables.groups, strict=True):
            assert now.losses == pytest.approx(before.losses)
        assert [one.loss for one in believed.contexts] == pytest.approx([one.loss for one in tables.contexts])


def test_changes_that_add_more_together() -> None:
    """Plans lose three times as much as the sum: so do those that were not scored."""
    tables = with_losses(random_tables(1), 1.0, 1)
    truth = with_losses(random_tables(1), 3.0, 1)
    believed = Surrogate(tables, scores_of(truth, plans_of(tables, 8, 1))).believed()
    for plan in plans_of(tables, 20, 2):
        assert added_loss(believed, plan) == pytest.approx(added_loss(truth, plan), rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_scores_bring_belief_nearer_to_the_truth(seed: int) -> None:
    tables, truth = with_losses(random_tables(seed), 1.0, seed), with_losses(random_tables(seed), 1.0, 100 + seed)
    unseen = plans_of(tables, 30, 7)

    def error(number: int) -> float:
        believed = Surrogate(tables, scores_of(truth, plans_of(tables, number, seed))).believed()
        return float(np.mean([abs(added_loss(believed, plan) - added_loss(truth, plan)) for plan in unseen]))

    assert error(60) < 0.5 * error(0)


def test_draws_are_fixed_by_the_generator_and_go_farther_and_farther() -> None:
    tables = with_losses(random_tables(2), 1.0, 2)
    surrogate = Surrogate(tables, scores_of(tables, plans_of(tables, 5, 0)))

    def drawn() -> list[Tables]:
        return list(itertools.islice(surrogate.sampled(np.random.default_rng(0)), 100))

    assert drawn() == drawn()
    believed = np.array([block.loss for block in surrogate.believed().blocks])
    distances = [np.abs(np.array([block.loss for block in one.blocks]) - believed).mean() for one in drawn()]
    assert np.mean(distances[50:]) > 3 * np.mean(distances[:10])


def test_gains_that_do_not_add_up() -> None:
    """Plans gain a third of what their changes do alone: so do those that were not scored."""
    tables, truth = with_losses(random_tables(3), -1.0, 3), with_losses(random_tables(3), -1.0 / 3.0, 3)
    believed = Surrogate(tables, scores_of(truth, plans_of(tables, 8, 3))).believed()
    for plan in plans_of(tables, 20, 4):
        assert added_loss(believed, plan) == pytest.approx(added_loss(truth, plan), rel=0.05)


def test_small_changes_are_doubted_more_for_their_size() -> None:
    """A change that adds a hundredth of another is known to more than a hundredth of its doubt."""
    tables = with_losses(random_tables(4), 1.0, 4)
    small, large = (Plan(dropped=frozenset({block.name})) for block in tables.blocks[:2])
    blocks = [tables.blocks[0].model_copy(update={"loss": 0.01}), tables.blocks[1].model_copy(update={"loss": 1.0})]
    tables = tables.model_copy(update={"blocks": (*blocks, *tables.blocks[2:])})
    surrogate = Surrogate(tables, {})
    drawn = list(itertools.islice(surrogate.sampled(np.random.default_rng(0)), 50))
    spread = {plan: float(np.std([added_loss(one, plan) for one in drawn])) for plan in (small, large)}
    assert 0.02 < spread[small] / spread[large] < 1.0


@pytest.mark.parametrize("seed", range(3))
def test_luck_is_not_taken_for_knowledge(seed: int) -> None:
    """Where the tables are right and only the scores are off, belief stays nearer to the tables than the scores do."""
    tables = with_losses(random_tables(seed), 1.0, seed)
    rng = np.random.default_rng(seed)
    exact = scores_of(tables, plans_of(tables, 30, seed))
    luck = dict(zip(exact, rng.normal(0.0, 0.3, len(exact)), strict=True))
    believed = Surrogate(tables, {plan: score + luck[plan] for plan, score in exact.items()}).believed()
    moved = [abs(added_loss(believed, plan) - added_loss(tables, plan)) for plan in plans_of(tables, 30, 7)]
    assert np.mean(moved) < 0.8 * np.mean(np.abs(list(luck.values())))
