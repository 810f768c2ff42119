"""Describes and remakes the inputs of a fingerprint: made-up numbers, or the values of an example.

Whole numbers (token ids, lengths, labels) are always those of the example, because a model may index with them.
Floating numbers are made up, unless the model needs the example's.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.checkpoint.manifest import InputSpec, TensorSpec
from toolkit.hooks.tensors import tensor_bytes

MOST_CHARACTERS = 2**20  # of an encoded input; the values of a larger one are made up

MOST_ELEMENTS = 2**23  # a manifest may come from anywhere: bounds the memory that loading takes


def describe_inputs(example_inputs: Sequence[Tensor], *, real: bool = False) -> tuple[InputSpec, ...]:
    """Returns what a fingerprint remembers of its inputs.

    real: whether the values of floating inputs are kept too.

    Raises:
        ValueError: an input has a type or size that a fingerprint cannot have.
    """
    num_elements = sum(tensor.numel() for tensor in example_inputs)
    if num_elements > MOST_ELEMENTS:
        raise ValueError(f"inputs of {num_elements} elements are too many for a fingerprint ({MOST_ELEMENTS})")
    specs = []
    for tensor in example_inputs:
        spec = TensorSpec.of(tensor)
        data = _encoded(tensor) if real or not tensor.is_floating_point() else None
        specs.append(InputSpec(shape=spec.shape, dtype=spec.dtype, scale=_scale(tensor), data=data))
    return tuple(specs)


def fixed_inputs(specs: Sequence[InputSpec]) -> list[Tensor]:
    """Returns the inputs of a fingerprint, which are made without a random generator.

    Raises:
        ValueError: the inputs are too large, or their values are damaged.
    """
    num_elements = sum(math.prod(spec.shape) for spec in specs)
    if num_elements > MOST_ELEMENTS:
        raise ValueError(f"inputs of {num_elements} elements are too many for a fingerprint ({MOST_ELEMENTS})")
    return [_made_up(spec) if spec.data is None else _decoded(spec, spec.data) for spec in specs]


def _scale(tensor: Tensor) -> float:
    numbers = tensor.detach().double() if tensor.is_floating_point() else torch.ones(1)
    finite = numbers[numbers.isfinite()]
    return float(finite.square().mean().sqrt()) if len(finite) else 1.0


def _made_up(spec: InputSpec) -> Tensor:
    """Returns a sine of the element's number for floating inputs, and 0 and 1 in turns for whole numbers."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    size = math.prod(spec.shape)
    if dtype.is_floating_point:  # the frequency is irrational, so that rows differ; a sine's mean square is 1/2
        wave = torch.arange(size, dtype=torch.float64).sin_().mul_(spec.scale * math.sqrt(2))
        return wave.to(dtype).reshape(spec.shape)
    return torch.arange(size).remainder_(2).to(dtype).reshape(spec.shape)


def _encoded(tensor: Tensor) -> str | None:
    """Returns the values in row-major order, deflated, in base64; None if the text is too long."""
    text = base64.b64encode(zlib.compress(tensor_bytes(tensor), 9)).decode()
    return text if len(text) <= MOST_CHARACTERS else None


def _decoded(spec: InputSpec, text: str) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    num_bytes = math.prod(spec.shape) * dtype.itemsize
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), max(1, num_bytes + 1))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"fingerprint: the values of an input are damaged: {error}") from error
    if len(content) != num_bytes:
        raise ValueError(f"fingerprint: an input of shape {spec.shape} has {len(content)} bytes, not {num_bytes}")
    if not num_bytes:
        return torch.empty(spec.shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(dtype).reshape(spec.shape)
