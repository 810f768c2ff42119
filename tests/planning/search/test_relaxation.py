"""Bounds against the best of all plans, and contexts that need not be solved."""

from __future__ import annotations

import pytest

from tests.helpers.random_tables import LATENCY, feasible, random_tables
from toolkit.planning.search import solver
from toolkit.planning.search.solver import PlanFamily, minimise_loss
from toolkit.planning.tables import Tables, added_loss

LIMITS = [{LATENCY: 0.5}, {LATENCY: 0.45, "macs": 0.5}, {"macs": 0.8, "params": 0.4}]


def bound(tables: Tables, context: int, limits: dict[str, float], family: PlanFamily) -> float:
    programme = solver._programmes(tables, limits, family)[context]
    return tables.contexts[context].loss + programme.bound(solver._losses(tables))


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("seed", range(4))
def test_no_plan_is_below_the_bound_and_the_best_is_near_it(seed: int, limits: dict[str, float]) -> None:
    tables = random_tables(seed, num_blocks=4, num_contexts=2)
    plans = feasible(tables, limits)
    for context in range(2):
        both = bound(tables, context, limits, "combined")
        best = min(added_loss(tables, plan) for plan in plans if plan.context == context)
        assert best - 0.5 < both <= best
        width = [added_loss(tables, plan) for plan in plans if plan.context == context and not plan.dropped]
        assert both <= bound(tables, context, limits, "width") <= min(width, default=float("inf"))


def test_a_bound_grows_without_end_where_no_plan_is_within_the_limits() -> None:
    tables = random_tables(0)
    assert bound(tables, 0, {"macs": 0.01}, "combined") > 1.0 > bound(tables, 0, {"macs": 0.9}, "combined")


def test_contexts_that_cannot_win_are_not_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[int] = []
    solve = solver._Programme.solve
    monkeypatch.setattr(solver._Programme, "solve", lambda one, goal: solved.append(one.context) or solve(one, goal))
    tables = random_tables(0, num_contexts=3)
    far = tables.contexts[1].model_copy(update={"loss": 100.0})
    near = tables.contexts[2].model_copy(update={"loss": -100.0})
    contexts = (tables.contexts[0], far, near)
    found = minimise_loss(tables.model_copy(update={"contexts": contexts}), LIMITS[0], "combined")
    assert found is not None and found.context == 2
    assert solved == [2]
