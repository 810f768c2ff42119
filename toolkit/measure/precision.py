"""Precisions: the switches and types that a model computes with, and how far its outputs may be from float32.

float32: TF32 is off. tf32: products of float32 matrices and convolutions may use TF32. bfloat16: weights, buffers and
inputs are cast, once and before anything is timed. That is how models are deployed; autocast would keep the weights in
float32, cast them on every call, and take the memory of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.hooks.copies import copy_model
from toolkit.measure.results import Precision

# the norm of the difference to the outputs in eager float32, as a share of their norm
TOLERANCES: Final[Mapping[Precision, float]] = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 1e-1}


@contextmanager
def tf32_is(allowed: bool) -> Iterator[None]:
    """Switches TF32 for products of matrices and for convolutions on CUDA; the caller's switches come back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def cast_model(model: nn.Module, precision: Precision) -> nn.Module:
    """Returns the model itself, or a copy in bfloat16; whole and complex numbers stay as they are."""
    return copy_model(model).bfloat16() if precision == "bfloat16" else model


def cast_inputs(inputs: tuple[Tensor, ...], precision: Precision) -> tuple[Tensor, ...]:
    if precision != "bfloat16":
        return inputs
    return tuple(part.bfloat16() if part.is_floating_point() else part for part in inputs)
