"""Keeps exporters quiet and shortens their errors: they print at length, and fail with pages of text."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator

from toolkit.base.errors import ExportError

_ANSI = re.compile(r"\x1b\[[0-9;]*m")

_ADVICE = re.compile(r"For more information, run with \S+|If you're using .*|See the stack trace .*")

_LONGEST_REASON = 300


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Hides everything that Python code in the `with` prints, logs or warns of."""
    level = logging.root.manager.disable
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Hides what code in the `with` prints, and turns its exceptions into an ExportError of `what` and their reason.

    All exceptions are caught, because exporters run the user's model and may raise any of them.
    """
    try:
        with hushed():
            yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{what}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Returns the first two lines of an error's deepest cause, without advice and colours, in 300 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [_ADVICE.sub("", without_colours(line)).strip() for line in str(error).splitlines()]
    text = " ".join([line for line in lines if line][:2])
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def without_colours(text: str) -> str:
    """Returns a text without the codes that colour it in a terminal."""
    return _ANSI.sub("", text)
