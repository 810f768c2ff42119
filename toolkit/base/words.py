"""Numbers and names in the words that messages, tables and pages share."""

from __future__ import annotations


def setting(ratio: float) -> str:
    """Returns a share that someone chose as a percentage, with as few decimals as it needs."""
    return f"{100 * ratio:g} %"


def plain(text: str, longest: int = 28) -> str:
    """Returns `text` fit for one line: unprintable characters replaced, the middle left out of long names."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = (longest - 1) // 2
    return shown if len(shown) <= longest else f"{shown[:half]}…{shown[-half:]}"
