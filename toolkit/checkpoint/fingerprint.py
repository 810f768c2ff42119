"""What a model computes on a fixed input, in a few numbers: proof that a loaded model is the one that was saved."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from toolkit.checkpoint.manifest import Fingerprint, InputSpec, OutputPrint, TensorSpec
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in

RELATIVE_TOLERANCE = 1e-4  # of the output's scale; room for another processor's order of summation

_MOST_INPUT_ELEMENTS = 2**23  # a manifest may come from anywhere: bounds the memory that loading takes

_NUM_VALUES = 16


def describe_inputs(example_inputs: tuple[Tensor, ...]) -> tuple[InputSpec, ...]:
    """Raises ValueError for an input type or size that a fingerprint cannot have."""
    specs = []
    for tensor in example_inputs:
        spec = TensorSpec.of(tensor)
        scale = float(tensor.detach().double().square().mean().sqrt()) if tensor.is_floating_point() else 1.0
        specs.append(InputSpec(shape=spec.shape, dtype=spec.dtype, scale=scale))
    return tuple(specs)


def take_fingerprint(model: nn.Module, specs: tuple[InputSpec, ...]) -> Fingerprint:
    """Run `model` (on the CPU) on the fixed inputs of `specs`; modes are put back.

    Raises:
        ValueError: the inputs are too large, or the model does not run on them or gives numbers that are not finite.
    """
    num_elements = sum(math.prod(spec.shape) for spec in specs)
    if num_elements > _MOST_INPUT_ELEMENTS:
        raise ValueError(f"inputs of {num_elements} elements are too many for a fingerprint ({_MOST_INPUT_ELEMENTS})")
    inputs = [_fixed_input(spec) for spec in specs]
    with evaluating(model), without_fast_path(), torch.inference_mode():
        try:
            outputs = tensors_in(model(*inputs))
        except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
            # whatever a forward method may raise on a structure that does not fit together
            raise ValueError(f"the model does not run on its example inputs: {error}") from error
    return Fingerprint(inputs=specs, outputs=tuple(_print_of(output) for output in outputs))


def find_difference(saved: Fingerprint, now: Fingerprint) -> str | None:
    """Where two fingerprints differ by more than the tolerance, in words; None when they agree."""
    if [(part.shape, len(part.values)) for part in saved.outputs] != [(p.shape, len(p.values)) for p in now.outputs]:
        return f"its outputs have other shapes: {[part.shape for part in now.outputs]}"
    for index, (old, new) in enumerate(zip(saved.outputs, now.outputs, strict=True)):
        size = max(1, math.prod(old.shape))
        scale = old.l2 / math.sqrt(size)  # root mean square
        pairs = [(old.mean, new.mean, scale), (old.l2, new.l2, old.l2)]
        pairs += [(one, other, max(scale, abs(one))) for one, other in zip(old.values, new.values, strict=True)]
        for one, other, of in pairs:
            if abs(one - other) > RELATIVE_TOLERANCE * of:
                return f"output {index} is {other:.9g} where it was {one:.9g}"
    return None


def _fixed_input(spec: InputSpec) -> Tensor:
    """A sine of the element's number for floats, 0 and 1 in turns for integers: no random generator involved."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    size = math.prod(spec.shape)
    if dtype.is_floating_point:  # the frequency is irrational, so that rows differ; a sine's mean square is 1/2
        wave = torch.arange(size, dtype=torch.float64).sin_().mul_(spec.scale * math.sqrt(2))
        return wave.to(dtype).reshape(spec.shape)
    return torch.arange(size).remainder_(2).to(dtype).reshape(spec.shape)


def _print_of(output: Tensor) -> OutputPrint:
    flat = output.detach().double().flatten()
    if not bool(flat.isfinite().all()):
        raise ValueError("the model's outputs are not finite numbers")
    places = torch.linspace(0, max(0, len(flat) - 1), min(_NUM_VALUES, len(flat))).long()
    return OutputPrint(
        shape=tuple(output.shape),
        mean=float(flat.mean()) if len(flat) else 0.0,
        l2=float(flat.norm()),
        values=tuple(flat[places].tolist()),
    )
