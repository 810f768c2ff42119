"""Refinement and its controls, with a score that is not what the tables add up to."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from tests.helpers.random_tables import LATENCY, random_tables, with_losses
from tests.helpers.slow import cases
from toolkit.planning.search import refine as search
from toolkit.planning.search.controls import greedy_search, random_search
from toolkit.planning.search.refine import HALVINGS, CountingScorer, fits, nearest_with_quality, num_scores, refine
from toolkit.planning.search.solver import minimise_loss
from toolkit.planning.search.surrogate import Surrogate
from toolkit.planning.tables import Plan, Tables, added_loss

LIMITS = {LATENCY: 0.5}
EVALUATIONS, FEW = 10, 4
MANY = [(seed, EVALUATIONS) for seed in range(5)]


def true_loss(tables: Tables, seed: int) -> CountingScorer:
    """The sum, what neighbouring drops add to each other, and luck that is the same for the same plan."""
    names = [block.name for block in tables.blocks]

    def score(choice: Plan, order: str) -> float:
        places = sorted(names.index(name) for name in choice.dropped)
        pairs = sum(second - first == 1 for first, second in itertools.pairwise(places))
        luck = np.random.default_rng([seed, zlib.crc32(repr((choice.key(), order)).encode())]).normal(0.0, 0.05)
        return tables.dense_loss + added_loss(tables, choice) + 0.2 * pairs + luck

    return CountingScorer(score)


@pytest.mark.parametrize(
    ("seed", "evaluations"), [(0, FEW), (2, FEW), *(pytest.param(*case, marks=pytest.mark.slow) for case in MANY)]
)
def test_never_worse_than_the_optimum_on_paper_or_the_better_axis(seed: int, evaluations: int) -> None:
    tables = random_tables(seed, num_contexts=2)
    scorer = true_loss(tables, seed)
    both = refine(tables, LIMITS, "combined", scorer, evaluations)
    assert both is not None
    assert fits(tables, LIMITS, both.choice)
    assert 4 <= scorer.spent <= num_scores("combined", evaluations)
    first = minimise_loss(tables, LIMITS, "combined")
    assert first is not None and both.loss <= scorer(first)
    for family in ("depth", "width"):
        single = refine(tables, LIMITS, family, true_loss(tables, seed), evaluations)
        assert single is None or both.loss <= single.loss


@pytest.mark.parametrize("family", cases(["depth", "width", "combined"], in_suite=("depth", "width")))
def test_scores_are_not_exceeded(family: str) -> None:
    tables = random_tables(5, num_contexts=2)
    scorer = true_loss(tables, 5)
    refine(tables, {LATENCY: 0.6}, family, scorer, EVALUATIONS)  # type: ignore[arg-type]
    assert 4 <= scorer.spent <= num_scores(family, EVALUATIONS)


def test_the_same_search_asks_for_the_same_plans() -> None:
    """So that another one finds all its scores where the first one kept them."""
    tables = random_tables(5)
    first, second = true_loss(tables, 5), true_loss(tables, 5)
    refine(tables, LIMITS, "combined", first, FEW)
    refine(tables, LIMITS, "combined", second, FEW)
    assert first.known == second.known and len(first.known) == first.spent > 10


def test_nothing_feasible() -> None:
    tables = random_tables(0)
    limits = {LATENCY: 0.01}
    scorer = true_loss(tables, 0)
    for family in ("depth", "width", "combined"):
        assert refine(tables, limits, family, scorer, 10) is None
        assert random_search(tables, limits, family, scorer, 10, 0) is None
        assert greedy_search(tables, limits, family, scorer, 10, 0) is None
    assert scorer.spent == 0


@pytest.mark.parametrize("search", [random_search, greedy_search])
def test_controls_hold_limits_and_are_fixed_by_their_seed(search: type) -> None:
    tables = random_tables(4, num_contexts=2)
    found = [search(tables, LIMITS, "combined", true_loss(tables, 4), 40, seed) for seed in (0, 0, 1)]
    assert all(fits(tables, LIMITS, one.choice) for one in found)
    assert found[0] == found[1]
    assert found[0] != found[2] or search is greedy_search  # which may well end at the same plan


@pytest.mark.parametrize("search", [random_search, greedy_search])
def test_controls_spend_what_they_are_given(search: type) -> None:
    tables = random_tables(4, num_contexts=2)
    scorer = true_loss(tables, 4)
    search(tables, LIMITS, "combined", scorer, 200, 0)
    assert scorer.spent >= 200
    assert scorer.spent <= 210
    few = true_loss(tables, 4)
    assert search(tables, {LATENCY: 0.9}, "depth", few, 200, 0) is not None
    assert few.spent < 200, "there are no 200 such plans"


@pytest.mark.parametrize("seed", cases(range(4), in_suite=(0, 1)))
def test_the_search_beats_its_controls_where_tables_tell_the_truth(seed: int) -> None:
    tables = random_tables(seed, num_contexts=2)

    def scorer() -> CountingScorer:
        return CountingScorer(lambda choice, _: tables.dense_loss + added_loss(tables, choice))

    own = scorer()
    found = refine(tables, LIMITS, "combined", own, 4)
    assert found is not None
    for control_search in (random_search, greedy_search):
        control = control_search(tables, LIMITS, "combined", scorer(), own.spent, seed)
        assert control is not None and found.loss <= control.loss + 1e-9


@pytest.mark.parametrize("seed", cases((1, 4), in_suite=(1,)))
def test_the_search_learns_what_the_tables_do_not_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where changes add other losses than the tables say, as many plans find more if their scores correct these."""
    tables, truth = (with_losses(random_tables(seed), 1.0, draw) for draw in (seed, 100 + seed))

    def found() -> float:
        scorer = CountingScorer(lambda choice, _: truth.dense_loss + added_loss(truth, choice))
        best = refine(tables, LIMITS, "combined", scorer, EVALUATIONS)
        assert best is not None
        return best.loss

    learnt = found()
    monkeypatch.setattr(search, "Surrogate", lambda tables, _: Surrogate(tables, {}))
    assert learnt < found()


@pytest.mark.parametrize("seed", range(3))
def test_where_a_quality_is_kept(seed: int) -> None:
    """Quality is what the tables say, so that it only grows with the budget."""
    tables = random_tables(seed)

    def quality(choice: Plan) -> float:
        return -added_loss(tables, choice)

    enough = minimise_loss(tables, {LATENCY: 0.7}, "combined")
    assert enough is not None
    found = nearest_with_quality(tables, {LATENCY: 0.3}, "combined", quality, quality(enough))
    assert found is not None
    share, kept = found
    assert 0.3 < share <= 0.7 + 0.7 / 2**HALVINGS
    assert kept >= quality(enough)
    assert nearest_with_quality(tables, {LATENCY: 0.3}, "combined", quality, 100.0) is None
