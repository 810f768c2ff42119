"""Writes numbers and names in the form that messages, tables and pages share."""

from __future__ import annotations


def setting(ratio: float) -> str:
    """Returns a share that a person chose (0.25) as a percentage with as few decimals as needed (`25 %`)."""
    return f"{100 * ratio:g} %"


def plain(text: str, longest: int = 28) -> str:
    """Returns `text` for one line: `?` for unprintable characters, `…` for the middle of more than `longest` ones."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    half = (longest - 1) // 2
    return shown if len(shown) <= longest else f"{shown[:half]}…{shown[-half:]}"
