"""Random small nets, cut at random, compute what masks say, or are refused for a reason of a closed list.

A net that fails is `network(seed)`, and `outcome_of(seed)` does the same to it again.
"""

from __future__ import annotations

import pytest

from tests.random_nets.network import network
from tests.random_nets.trial import elements_of, outcome_of

NUM_NETS, PER_TEST = 300, 30

LEAST_SHARE = 0.9  # of the nets, of which something is cut

FIRST = [0, *(pytest.param(first, marks=pytest.mark.slow) for first in range(PER_TEST, NUM_NETS, PER_TEST))]


@pytest.mark.parametrize("first", FIRST)
def test_nets_compute_what_masks_say(first: int) -> None:
    outcomes = [outcome_of(seed) for seed in range(first, first + PER_TEST)]
    assert [fault for outcome in outcomes for fault in outcome.faults] == []
    assert sum(bool(outcome.cut) for outcome in outcomes) >= LEAST_SHARE * PER_TEST


@pytest.mark.slow
def test_every_element_is_cut_in_some_net() -> None:
    """A generator whose nets were refused, or that no longer drew what it is for, would pass the test above."""
    drawn = {seed: set(elements_of(network(seed)).values()) for seed in range(NUM_NETS)}
    left = set[str]().union(*drawn.values())
    assert len(left) >= 60
    for seed, elements in drawn.items():
        if elements & left:
            left -= outcome_of(seed).cut
    assert left == set()
