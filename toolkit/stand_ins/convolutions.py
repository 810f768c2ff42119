"""Knows plain convolutions: their types, the functions that compute them, and their padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS: Final = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}  # by the number of dimensions of time and space

CONVOLUTION_TYPES: Final[tuple[type[nn.Module], ...]] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d


def padding_of(conv: Conv) -> tuple[int, ...]:
    """Returns the zeros that a convolution adds on each side of each axis.

    Raises:
        ValueError: it adds other numbers than zeros, or not equally many on both sides.
    """
    if conv.padding_mode != "zeros":
        raise ValueError(f"its padding mode is {conv.padding_mode}, not zeros")
    if conv.padding == "valid":
        return (0,) * len(conv.stride)
    if conv.padding == "same":
        reach = [dilation * (kernel - 1) for dilation, kernel in zip(conv.dilation, conv.kernel_size, strict=True)]
        if any(size % 2 for size in reach):
            raise ValueError("its padding `same` adds more zeros on one side than on the other")
        return tuple(size // 2 for size in reach)
    assert isinstance(conv.padding, tuple)
    return conv.padding


def index_on(values: Sequence[int], device: torch.device) -> Tensor:
    """Returns an index on the device, with values even where the weights have none."""
    return torch.tensor(list(values), dtype=torch.int64, device="cpu" if device.type == "meta" else device)
