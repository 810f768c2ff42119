"""Plain lines when piped, bars on a terminal. The clock is a list of numbers."""

from __future__ import annotations

import io

import pytest

from toolkit.base.console import Console, plain_table


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def piped() -> tuple[Console, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return Console(stream, clock=clock), stream, clock


def test_piped_progress_speaks_at_each_quarter() -> None:
    console, stream, clock = piped()
    with console.progress("score", 8) as progress:
        for _ in range(8):
            clock.now_s += 1
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "score: 0/8",
        "score: 2/8, 2 s",
        "score: 4/8, 4 s",
        "score: 6/8, 6 s",
        "score: 8/8, 8 s",
    ]


def test_piped_progress_speaks_after_15_s() -> None:
    console, stream, clock = piped()
    with console.progress("train", 1000) as progress:
        progress.advance()
        clock.now_s = 14.9
        progress.note("loss 2.0")
        clock.now_s = 15.0
        progress.note("loss 1.0")
        clock.now_s = 29.0
        progress.advance()
    assert stream.getvalue().splitlines() == [
        "train: 0/1000",
        "train: 1/1000, 15 s, loss 1.0",
        "train: 2/1000, 29 s, loss 1.0",
    ]


def test_progress_that_stops_early_says_where() -> None:
    console, stream, _ = piped()
    with console.progress("train", 10) as progress:
        progress.advance(2)
    assert stream.getvalue().splitlines()[-1] == "train: 2/10, 0 s"


def test_progress_of_nothing() -> None:
    console, stream, _ = piped()
    with console.progress("nothing", 0) as progress:
        progress.note("x")
    assert stream.getvalue().splitlines() == ["nothing: 0/0", "nothing: 0/0, 0 s, x"]


def test_error_inside_progress_passes_through() -> None:
    stream = io.StringIO()
    console = Console(stream, terminal=True)

    def fail() -> None:
        with console.progress("score", 4) as progress:
            progress.advance()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    with console.progress("again", 1) as progress:  # the display was closed
        progress.advance()
    assert "again: 1/1" in stream.getvalue()


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_no_control_characters_when_piped(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    console, stream, _ = piped()
    console.line("[bold]as it is[/bold]")
    console.table("t", ["a", "b"], [["1", "2"]])
    with console.progress("p", 2) as progress:
        progress.advance()
    text = stream.getvalue()
    assert text.startswith("[bold]as it is[/bold]\n")
    assert all(character.isprintable() or character == "\n" for character in text)


def test_terminal_has_nested_bars_and_lines() -> None:
    stream = io.StringIO()
    console = Console(stream, terminal=True)
    with console.progress("outer [x]", 2) as outer, console.progress("inner", 3) as inner:
        inner.advance(3)
        inner.note("note")
        outer.advance()
        console.line("a line [b]")
    text = stream.getvalue()
    for part in ("\x1b[", "a line [b]", "inner: 3/3, 0 s, note", "outer [x]: 1/2, 0 s"):
        assert part in text


def test_plain_table_is_aligned_and_whole() -> None:
    long = "x" * 200
    lines = plain_table("title", ["stage", "MACs"], [["drop", "1"], [long, "12345"]]).splitlines()
    pad = " " * 195
    assert lines == ["title", f"stage{pad}   MACs", f"{'-' * 200}  -----", f"drop {pad}      1", f"{long}  12345"]


def test_terminal_table_takes_text_as_it_is() -> None:
    stream = io.StringIO()
    Console(stream, terminal=True).table("results", ["stage", "MACs"], [["[red]drop[/red]", "0.58"]])
    for part in ("results", "stage", "MACs", "[red]drop[/red]", "0.58"):
        assert part in stream.getvalue()
