"""Tables corrected by scores of whole plans."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from random_tables import random_tables, with_losses

from toolkit.planning.controls import random_choice
from toolkit.planning.surrogate import Surrogate
from toolkit.planning.tables import Choice, Tables, added_loss


def plans_of(tables: Tables, number: int, seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    return [random_choice(tables, {"macs": float(rng.uniform(0.3, 0.8))}, "combined", rng) for _ in range(number)]


def scores_of(truth: Tables, plans: list[Choice]) -> dict[Choice, float]:
    return {plan: truth.dense_loss + added_loss(truth, plan) for plan in plans}


def test_without_scores_the_tables_stay() -> None:
    tables = with_losses(random_tables(0, num_contexts=2), 1.0, 0)
    for scores in ({}, {Choice(): tables.dense_loss}):
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
        return list(itertools.islice(surrogate.sampled(np.random.default_rng(0)), 40))

    assert drawn() == drawn()
    believed = np.array([block.loss for block in surrogate.believed().blocks])
    distances = [np.abs(np.array([block.loss for block in one.blocks]) - believed).mean() for one in drawn()]
    assert np.mean(distances[20:]) > 2 * np.mean(distances[:5])


def test_no_change_gains_more_than_it_did_alone() -> None:
    tables = random_tables(3)  # some widths gain
    truth = with_losses(random_tables(3), -5.0, 3)
    believed = Surrogate(tables, scores_of(truth, plans_of(tables, 20, 3))).believed()
    for now, before in zip(believed.groups, tables.groups, strict=True):
        assert all(loss >= min(alone, 0.0) - 1e-12 for loss, alone in zip(now.losses, before.losses, strict=True))
    assert all(block.loss >= 0.0 for block in believed.blocks)
