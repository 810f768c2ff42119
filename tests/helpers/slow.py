"""Many cases of one check: a few of them in the suite, the rest among the tests that are slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
from _pytest.mark import ParameterSet


def cases(values: Iterable[object], in_suite: Collection[object]) -> list[ParameterSet]:
    """For `parametrize`; those that are not `in_suite` are marked `slow`."""
    found = list(values)
    assert set(in_suite) <= set(found), "a case that there is not"
    return [pytest.param(value, marks=() if value in in_suite else pytest.mark.slow) for value in found]
