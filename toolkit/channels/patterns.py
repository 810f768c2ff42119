"""Matches names of modules against patterns: names, shell patterns, or regular expressions after `re:`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from toolkit.base.errors import UserError


def matches_any(name: str, patterns: Sequence[str]) -> bool:
    """Says whether a pattern matches the name of a module or of a module around it (`head` matches `head.norm`).

    Raises:
        UserError: a regular expression is not valid.
    """
    parts = name.split(".")
    tops = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(_matches(top, pattern) for pattern in patterns for top in tops)


def _matches(name: str, pattern: str) -> bool:
    if not pattern.startswith("re:"):
        return fnmatchcase(name, pattern)
    try:
        return re.fullmatch(pattern[3:], name) is not None
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is not a regular expression: {error}") from error
