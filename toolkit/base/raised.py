"""What a user's own code raised, in one line with the place in that code."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from traceback import extract_tb

_NOT_THE_USERS = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values())

LONGEST = 300  # characters of a message


def one_line(error: BaseException) -> str:
    """Returns `ValueError: the message`, with line breaks taken out and cut where it is long."""
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place_of(error: BaseException) -> str | None:
    """Returns `net.py:33`, the last line of the user's own code that was running; None where there was none.

    Installed packages, the standard library and this package are not the user's.
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{Path(error.filename).name}:{error.lineno}"
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *_NOT_THE_USERS)):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return None


def with_place(error: BaseException) -> str:
    """Returns `ValueError: the message (net.py:33)`, the place where it is known."""
    place = place_of(error)
    return one_line(error) if place is None else f"{one_line(error)} ({place})"
