"""Shows a run to a person: bars and tables on a terminal, plain lines where the output is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 15.0

REFRESHES_PER_S = 1  # of bars; ten, as is rich's default, made the calls that are timed meanwhile 4 % slower


@dataclass
class Progress:
    """Counts how far a long step has come, and passes itself to `show` after every change.

    total: the number of units of the whole step, as far as it is known; it grows where more units are finished.
    done: the number of units that are finished.
    text: a short note on the state of the step, such as the current loss.
    """

    show: Callable[[Progress], None]
    total: int
    done: int = 0
    text: str = ""

    def advance(self, n: int = 1) -> None:
        """Adds `n` finished units."""
        self.done += n
        self.total = max(self.total, self.done)
        self.show(self)

    def note(self, text: str) -> None:
        """Replaces the note on the state of the step."""
        self.text = text
        self.show(self)

    def end(self) -> None:
        """Makes the total what is done, for the end of a step whose total was only an upper bound."""
        self.total = self.done
        self.show(self)


class Console:
    """Writes lines, tables and progress for a person to read.

    stream: the file that is written to; None stands for standard output at the time of the call.
    terminal: whether `stream` is a terminal; None asks the stream.
    clock: returns seconds; only their differences are used.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._clock = clock
        is_terminal = self._stream.isatty() if terminal is None else terminal
        # rich would also take FORCE_COLOR for a terminal; a pipe gets no control characters whatever the environment
        self._rich = RichConsole(file=self._stream, force_terminal=True) if is_terminal else None
        self._bars: RichProgress | None = None

    def line(self, text: str = "") -> None:
        """Writes one line of plain text."""
        if self._rich is not None:
            self._rich.print(Text(text), soft_wrap=True)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Writes a table whose first column is aligned left and whose other columns (numbers) are aligned right."""
        if self._rich is None:
            self.line(plain_table(title, columns, rows))
            return
        table = Table(title=Text(title), title_justify="left")
        for index, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if index else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._rich.print(table)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Progress]:
        """Shows `description` and how much of `total` is done while the `with` lasts, and leaves one line at its end.

        Bars may be nested.
        """
        lines = _Lines(self.line, self._clock, description)
        if self._rich is None:
            self.line(f"{description}: 0/{total}")
            progress = Progress(lines.show, total)
            yield progress
        else:
            with self._bar(self._rich, description, total) as progress:
                yield progress
        lines.write(progress)

    @contextmanager
    def _bar(self, rich: RichConsole, description: str, total: int) -> Iterator[Progress]:
        """Adds a bar to those on the screen; rich allows a single live display, so all bars share one."""
        outermost = self._bars is None
        bars = self._bars or _rich_progress(rich)
        if outermost:
            self._bars = bars
            bars.start()
        task = bars.add_task(description, total=total, note="")
        try:

            def show(progress: Progress) -> None:
                bars.update(task, completed=progress.done, total=progress.total, note=progress.text)

            yield Progress(show, total)
        finally:
            bars.remove_task(task)
            if outermost:
                bars.stop()
                self._bars = None


@dataclass
class _Lines:
    """Writes progress as plain lines: one after each quarter, and at least one every 15 s while the step advances."""

    line: Callable[[str], None]
    clock: Callable[[], float]
    description: str
    quarter: int = 0
    start_s: float = field(init=False)
    last_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.start_s = self.last_s = self.clock()

    def show(self, progress: Progress) -> None:
        if progress.done >= progress.total:
            return  # the last line is written when the step is over
        quarter = 4 * progress.done // progress.total
        if quarter > self.quarter or self.clock() - self.last_s >= LINE_EVERY_S:
            self.quarter = quarter
            self.write(progress)

    def write(self, progress: Progress) -> None:
        self.last_s = self.clock()
        parts = [f"{progress.done}/{progress.total}", f"{self.last_s - self.start_s:.0f} s", progress.text]
        self.line(f"{self.description}: {', '.join(part for part in parts if part)}")


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns an aligned table in plain characters, as wide as its longest cells."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
    cells.insert(1, ["-" * width for width in widths])
    lines = [
        "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _rich_progress(rich: RichConsole) -> RichProgress:
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=rich,
        transient=True,
        refresh_per_second=REFRESHES_PER_S,
    )
