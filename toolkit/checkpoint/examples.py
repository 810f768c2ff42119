"""The inputs of a fingerprint: made-up numbers, or those of an example where a model may look at what they are.

Whole numbers (token ids, lengths, labels) are always those of the example; floating ones only if the model needs them.
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

MOST_CHARACTERS = 2**20  # of an encoded input; a larger one is made up

MOST_ELEMENTS = 2**23  # a manifest may come from anywhere: bounds the memory that loading takes


def describe_inputs(example_inputs: Sequence[Tensor], *, real: bool = False) -> tuple[InputSpec, ...]:
    """Returns what a fingerprint remembers of its inputs; with `real`, the values of floating inputs too.

    Raises:
        ValueError: an input is of a type or size that a fingerprint cannot have.
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
    """Returns the inputs of a fingerprint. No random generator is involved.

    Raises:
        ValueError: the inputs are too large, or their values are damaged.
    """
    num_elements = sum(math.prod(spec.shape) for spec in specs)
    if num_elements > MOST_ELEMENTS:
        raise ValueError(f"inputs of {num_elements} elements are too many for a fingerprint ({MOST_ELEMENTS})")
    return [_made_up(spec) if spec.data is None else _decoded(spec, spec.data) for spec in specs]


def _scale(tensor: Tensor) -> float:
    numbers = tensor.detach().double() if tensor.is_floating_point() else torch.ones(1)
    known = numbers[numbers.isfinite()]
    return float(known.square().mean().sqrt()) if len(known) else 1.0


def _made_up(spec: InputSpec) -> Tensor:
    """A sine of the element's number for floats, 0 and 1 in turns for whole numbers."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    size = math.prod(spec.shape)
    if dtype.is_floating_point:  # the frequency is irrational, so that rows differ; a sine's mean square is 1/2
        wave = torch.arange(size, dtype=torch.float64).sin_().mul_(spec.scale * math.sqrt(2))
        return wave.to(dtype).reshape(spec.shape)
    return torch.arange(size).remainder_(2).to(dtype).reshape(spec.shape)


def _encoded(tensor: Tensor) -> str | None:
    """The values in row-major order, deflated, in base64; None if that is too long."""
    text = base64.b64encode(zlib.compress(tensor_bytes(tensor), 9)).decode()
    return text if len(text) <= MOST_CHARACTERS else None


def _decoded(spec: InputSpec, text: str) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    wanted = math.prod(spec.shape) * dtype.itemsize
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), max(1, wanted + 1))
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"fingerprint: the values of an input are damaged: {error}") from error
    if len(content) != wanted:
        raise ValueError(f"fingerprint: an input of shape {spec.shape} has {len(content)} bytes, not {wanted}")
    if not wanted:
        return torch.empty(spec.shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(dtype).reshape(spec.shape)
