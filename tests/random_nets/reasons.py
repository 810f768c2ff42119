"""The closed list of reasons for which the toolkit may leave a part of a random net as it is."""

from __future__ import annotations

import re

_LAYER = r"[\w.]+"

GROUPS = {
    "output": r"is an output of the model",
    "unread": r"no layer reads it",
    "opaque": r"computes with layers that it does not call",
    "read by opaque": rf"is read by {_LAYER}, which computes with layers that it does not call",
    "mixed": r"a change of some of its channels reaches all of them",
    "shared": rf"all (heads|channels) of {_LAYER} share its channels",
    "code": r"it cannot be cut: its forward code does not run with the narrower layers( in training mode)?: .+",
    "shapes": r"it cannot be cut: its outputs have another shape with the narrower layers .+",
    "in groups": r"it cannot be cut: a convolution in groups loses whole groups only",
    "shared tensor": rf"shares a tensor with {_LAYER}, where the same channels cannot be cut",
    "norm in groups": r"it cannot be cut: a norm in groups loses whole groups only",
    "wrong": r"cut in half it computes something else \(off by .+\)",
}

BLOCKS = {
    "called again": r"it is called \d times in one pass, and dropping it would drop all of its calls",
    "unlike": r"it does not add its work to what comes in",
    "shape": r"it returns \[.+\] of float64 where \[.+\] of float64 comes in",
}


def kind_of(reason: str, patterns: dict[str, str]) -> str | None:
    """Returns the name of the reason in the list; None if it is not there."""
    return next((name for name, pattern in patterns.items() if re.fullmatch(pattern, reason, re.DOTALL)), None)
