"""Says how the outputs of a model differ from its own outputs in another situation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def difference(first: Sequence[Tensor], second: Sequence[Tensor], whose: str, close: float) -> str | None:
    """Returns in words how the second outputs differ from the first; None if they do not.

    whose: words for the origin of the second outputs, such as "by the copy".
    close: the largest difference that is ignored, as a share of the largest number of a tensor.
    """
    if [part.shape for part in first] != [part.shape for part in second]:
        return f"the outputs have other shapes {whose}: {[tuple(part.shape) for part in second]}"
    for before, after in zip(first, second, strict=True):
        if before.numel() == 0 or torch.equal(before, after):
            continue
        gap = float((before.double() - after.double()).abs().max())
        if gap > close * float(before.double().abs().max()):
            return f"the outputs are others {whose}: off by up to {gap:.3g}"
    return None
