"""Puts a model into a precision, and says how far its outputs may then be from those in float32.

In `float32`, TF32 is off. In `tf32`, products of float32 matrices and convolutions may use TF32. For `bfloat16`, the
weights, buffers and inputs are cast once, before anything is timed, as in deployed models; autocast would keep the
weights in float32, cast them on every call, and take the memory of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.hooks.copies import copy_model
from toolkit.measure.results import Precision

# largest norm of the difference to the outputs in eager float32, as a share of their norm
TOLERANCES: Final[Mapping[Precision, float]] = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 1e-1}


@contextmanager
def tf32_is(allowed: bool) -> Iterator[None]:
    """Switches TF32 on or off for matrix products and convolutions on CUDA, and restores the caller's switches."""
    previous = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = previous


def cast_model(model: nn.Module, precision: Precision) -> nn.Module:
    """Returns a copy in bfloat16 for that precision, else the model itself; whole and complex numbers are not cast."""
    return copy_model(model).bfloat16() if precision == "bfloat16" else model


def cast_inputs(inputs: tuple[Tensor, ...], precision: Precision) -> tuple[Tensor, ...]:
    """Returns the inputs with floating numbers in bfloat16 for that precision, else the inputs as they are."""
    if precision != "bfloat16":
        return inputs
    return tuple(part.bfloat16() if part.is_floating_point() else part for part in inputs)
