"""Compares the outputs of a model in a runtime and precision with those in eager float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def outputs_error(wanted: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Returns the largest error of an output: norm(found - wanted) / norm(wanted).

    Two things are left out: outputs of whole numbers, such as labels, because they change where two scores are about
    equal; and elements that are not finite in `wanted`, such as those of masks. The error is infinite if the outputs
    differ in number or shape, or if an element of `found` is not finite and that of `wanted` is.
    """
    if [part.shape for part in wanted] != [part.shape for part in found]:
        return float("inf")
    pairs = [pair for pair in zip(wanted, found, strict=True) if pair[0].is_floating_point()]
    return max((_error(*pair) for pair in pairs), default=0.0)


def _error(wanted: Tensor, found: Tensor) -> float:
    finite = wanted.isfinite()
    wanted, found = wanted[finite].double(), found[finite].double()
    if not bool(found.isfinite().all()):
        return float("inf")
    difference, norm = (float(torch.linalg.vector_norm(part)) for part in (found - wanted, wanted))
    return difference / norm if norm else difference
