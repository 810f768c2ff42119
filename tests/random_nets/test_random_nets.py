"""Random small nets, cut at random, compute what masks say, or are refused for a reason of a closed list.

A net that fails is `network(seed)`; `outcome_of(seed)` does the same to it again.
"""

from __future__ import annotations

import pytest

from tests.random_nets.trial import outcome_of

PER_TEST = 30

MOST_ARE_CUT = 0.7


@pytest.mark.parametrize(
    "first", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(PER_TEST, 300, PER_TEST))]
)
def test_nets_compute_what_masks_say(first: int) -> None:
    outcomes = [outcome_of(seed) for seed in range(first, first + PER_TEST)]
    assert [fault for outcome in outcomes for fault in outcome.faults] == []
    assert sum(bool(outcome.cut) for outcome in outcomes) >= MOST_ARE_CUT * PER_TEST
