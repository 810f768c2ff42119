"""The runoff: who runs, and that fresh data decide."""

from __future__ import annotations

from tests.helpers.random_tables import random_tables
from toolkit.planning.search.refine import ORDERS, BestPlan, CountingScorer, refine
from toolkit.planning.search.runoff import contenders, finalists, run_off
from toolkit.planning.tables import MACS, Plan, cost


def scored(limit: float) -> tuple[CountingScorer, BestPlan]:
    tables = random_tables(0)
    scorer = CountingScorer(lambda choice, order: 0.1 * len(order) + cost(tables, choice, MACS))
    found = refine(tables, {MACS: limit}, "combined", scorer, 4)
    assert found is not None
    return scorer, found


def kind(choice: Plan) -> str:
    both = choice.dropped and (choice.levels or choice.context)
    return "both" if both else "depth" if choice.dropped else "width"


def test_the_best_of_every_family_run_and_plans_over_the_limits_do_not() -> None:
    tables, (scorer, _) = random_tables(0), scored(0.6)
    plans = finalists(tables, {MACS: 0.6}, "combined", scorer.known, 2)
    kinds = [kind(one.choice) for one in plans]
    assert kinds == sorted(kinds) and kinds[:2] == ["both", "both"]
    assert 1 <= kinds.count("depth") <= 2 and 1 <= kinds.count("width") <= 2
    assert len({one.choice for one in plans}) == len(plans), "each in its best order alone"
    for name in ("depth", "width"):
        of_axis = finalists(tables, {MACS: 0.6}, name, scorer.known, 2)  # type: ignore[arg-type]
        assert [kind(one.choice) for one in of_axis] == [name] * kinds.count(name)
        assert of_axis[0].loss <= of_axis[-1].loss
        assert set(of_axis) <= set(plans)
    tighter = finalists(tables, {MACS: 0.4}, "combined", scorer.known, 2)
    assert all(cost(tables, one.choice, MACS) <= 0.4 + 1e-9 for one in tighter)


def test_fresh_data_decide() -> None:
    tables, (scorer, found) = random_tables(0), scored(0.6)
    plans = finalists(tables, {MACS: 0.6}, "combined", scorer.known, 2)
    assert plans[0].loss == min(loss for (choice, _), loss in scorer.known.items() if kind(choice) == "both")
    width = next(one for one in plans if kind(one.choice) == "width")
    judged: list[str] = []

    def judge(choice: Plan, order: str) -> float:
        judged.append(order)
        return 0.0 if choice == width.choice else 1.0

    assert run_off(plans, judge) == (width, 0.0)
    assert len(judged) == len(plans) and set(judged) <= set(ORDERS)
    assert found.loss <= width.loss, "by the scores that were searched with, another plan was as good or better"


def test_plans_that_are_far_behind_do_not_run() -> None:
    losses = {"a": 1.2, "b": 1.39, "c": 1.41, "d": 9.0}
    plans = [BestPlan(Plan(dropped=frozenset({name})), ORDERS[0], loss) for name, loss in losses.items()]
    assert contenders(plans, 1.0) == plans[:2], "the best adds 0.2, so 0.2 more is the most"
    assert contenders(plans[:3], 5.0) == plans[:3], "where nothing is lost, a tenth of the dense loss decides"
    assert contenders(plans[3:], 1.0) == plans[3:]
