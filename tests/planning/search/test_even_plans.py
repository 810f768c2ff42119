"""Plans that cut all widths alike."""

from __future__ import annotations

import pytest

from tests.helpers.random_tables import random_tables
from toolkit.planning.search.even_plans import even_plans
from toolkit.planning.search.refine import fits
from toolkit.planning.tables import MACS, cost


@pytest.mark.parametrize("seed", range(4))
def test_they_hold_the_limits_and_cut_what_their_family_cuts(seed: int) -> None:
    tables = random_tables(seed, num_contexts=2)
    limits = {MACS: 0.5}
    assert even_plans(tables, limits, "depth") == []
    width, both = even_plans(tables, limits, "width"), even_plans(tables, limits, "combined")
    assert both and len(set(both)) == len(both)
    for choice in (*width, *both):
        assert fits(tables, limits, choice) and choice.levels and not choice.context
    assert all(not choice.dropped for choice in width)
    assert all(choice.dropped for choice in both)
    numbers = [len(choice.dropped) for choice in both]
    assert numbers == sorted(numbers, reverse=True), "the narrower the widths, the fewer blocks have to go"


def test_what_is_left_of_the_limit_is_given_back() -> None:
    tables = random_tables(1)
    for choice in even_plans(tables, {MACS: 0.6}, "combined"):
        for group in tables.groups:
            level = choice.levels.get(group.name, 0)
            costs = tables.contexts[0].groups[group.name]
            gains = level and group.losses[level] > group.losses[level - 1] and len(choice.levels) > 1
            if gains and costs[level - 1][MACS] > costs[level][MACS]:
                assert cost(tables, choice, MACS) + costs[level - 1][MACS] - costs[level][MACS] > 0.6


def test_nothing_where_nothing_holds() -> None:
    assert even_plans(random_tables(0), {MACS: 1e-6}, "combined") == []
