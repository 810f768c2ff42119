"""The total of a progress is never below what is done, and can be an upper bound."""

from __future__ import annotations

import io

import pytest

from toolkit.base.console import Console


@pytest.mark.parametrize("terminal", [False, True])
def test_a_progress_does_not_count_above_its_total(terminal: bool) -> None:
    stream = io.StringIO()
    with Console(stream, terminal=terminal).progress("score", 2) as progress:
        progress.advance(3)
        assert progress.total == 3
    assert "score: 3/3" in stream.getvalue() and "3/2" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_an_upper_bound_is_lowered_at_the_end(terminal: bool) -> None:
    stream = io.StringIO()
    with Console(stream, terminal=terminal).progress("score", 8) as progress:
        progress.advance(5)
        progress.end()
    assert "score: 5/5" in stream.getvalue()


def test_the_end_of_nothing() -> None:
    stream = io.StringIO()
    with Console(stream).progress("score", 8) as progress:
        progress.end()
    assert stream.getvalue().splitlines() == ["score: 0/8", "score: 0/0, 0 s"]
