"""The number of scores that is announced is an upper bound, also where all starts of the search are unlike."""

from __future__ import annotations

import pytest

from tests.helpers.random_tables import LATENCY, random_tables
from toolkit.planning.search import refine as search
from toolkit.planning.search.even_plans import SHARES
from toolkit.planning.search.refine import CountingScorer, num_scores, refine
from toolkit.planning.tables import Plan, Tables


def all_unlike(tables: Tables, limits: object, family: str) -> list[Plan]:
    """Returns as many plans as `even_plans` returns at most, all unlike and other ones for each family."""
    if family == "depth":
        return []
    dropped = frozenset({tables.blocks[0].name}) if family == "combined" else frozenset[str]()
    names = [group.name for group in tables.groups if group.block not in dropped]
    return [
        Plan(0, dropped, {names[index % 5]: 1, names[(index // 5 + index + 1) % 5]: 2}) for index in range(len(SHARES))
    ]


@pytest.mark.parametrize("evaluations", [1, 2, 3])
@pytest.mark.parametrize("seed", range(2))
def test_no_search_scores_more(seed: int, evaluations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "even_plans", all_unlike)
    for family in ("depth", "width", "combined"):
        scorer = CountingScorer(lambda choice, order: 1.0 if choice.dropped and choice.levels else 2.0)
        assert refine(random_tables(seed), {LATENCY: 0.8}, family, scorer, evaluations) is not None  # type: ignore[arg-type]
        assert scorer.spent <= num_scores(family, evaluations)  # type: ignore[arg-type]
    assert scorer.spent > 6 * evaluations + len(SHARES), "as many as one set of even plans would allow is too few"
