"""Whether a model that was made ready for a runtime or a precision still computes what it did."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def outputs_error(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Returns the norm of the difference as a share of the norm of what is wanted, of the output where it is largest.

    Whole numbers, such as labels, are left out: they change where two scores are about equal. So are numbers that are
    not finite in what is wanted, such as masks. Infinity: other shapes, another number of outputs, or a number that is
    not finite where it should be.
    """
    if [part.shape for part in wanted] != [part.shape for part in found]:
        return float("inf")
    pairs = [(one, other) for one, other in zip(wanted, found, strict=True) if one.is_floating_point()]
    return max((_error(one, other) for one, other in pairs), default=0.0)


def _error(wanted: Tensor, found: Tensor) -> float:
    finite = wanted.isfinite()
    wanted, found = wanted[finite].double(), found[finite].double()
    if not bool(found.isfinite().all()):
        return float("inf")
    difference, norm = (float(torch.linalg.vector_norm(part)) for part in (found - wanted, wanted))
    return difference / norm if norm else difference
