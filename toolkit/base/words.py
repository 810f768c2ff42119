"""Writes numbers and names in the form that messages, tables and pages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def setting(ratio: float) -> str:
    """Returns a share that a person chose (0.25) as a percentage with as few decimals as needed (`25 %`)."""
    return f"{100 * ratio:g} %"


def plain(text: str, longest: int = 28) -> str:
    """Returns `text` for one line: `?` for unprintable characters, `…` for the middle of more than `longest` ones."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = (longest - 1) // 2
    return shown if len(shown) <= longest else f"{shown[:half]}…{shown[-half:]}"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns `did you mean 'x'? ` for the choice closest to a word, or an empty text if none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
