"""Keeps what a model computes on a fixed input in a few numbers, to prove that a loaded model is the saved one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolkit.checkpoint.examples import describe_inputs, fixed_inputs
from toolkit.checkpoint.manifest import Fingerprint, InputSpec, OutputPrint
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.untouched import untouched

RELATIVE_TOLERANCE = 1e-4  # of the output's scale; room for another processor's order of summation

_NUM_VALUES = 16


def take_fingerprint(model: nn.Module, specs: tuple[InputSpec, ...]) -> Fingerprint:
    """Returns the fingerprint of a model on the CPU, on the fixed inputs of `specs`; modes are restored.

    Raises:
        ValueError: the inputs are too large, the model does not run on them, or its outputs are not finite numbers.
    """
    inputs = fixed_inputs(specs)
    with untouched(model), evaluating(model), without_fast_path(), torch.inference_mode():
        try:
            outputs = tensors_in(model(*inputs))
        except Exception as error:  # the user's code may raise anything
            raise ValueError(f"the model does not run on its example inputs: {error}") from error
    if not any(output.numel() for output in outputs):
        raise ValueError("the model returns no numbers for its example inputs, so nothing can be compared")
    return Fingerprint(inputs=specs, outputs=tuple(_print_of(output) for output in outputs))


def fingerprint_of(model: nn.Module, example_inputs: Sequence[Tensor]) -> Fingerprint:
    """Returns the fingerprint on made-up floating inputs, or on the example's values if the model refuses those.

    Raises:
        ValueError: as `take_fingerprint`, for the example's values.
    """
    try:
        return take_fingerprint(model, describe_inputs(example_inputs))
    except ValueError:
        return take_fingerprint(model, describe_inputs(example_inputs, real=True))


def find_difference(saved: Fingerprint, now: Fingerprint) -> str | None:
    """Returns where two fingerprints differ by more than the tolerance, in words; None if they agree."""
    if [(part.shape, len(part.values)) for part in saved.outputs] != [(p.shape, len(p.values)) for p in now.outputs]:
        return f"its outputs have other shapes: {[part.shape for part in now.outputs]}"
    for index, (old, new) in enumerate(zip(saved.outputs, now.outputs, strict=True)):
        size = max(1, math.prod(old.shape))
        scale = old.l2 / math.sqrt(size)  # root mean square
        pairs = [(old.mean, new.mean, scale), (old.l2, new.l2, old.l2)]
        pairs += [
            (before, after, max(scale, abs(before))) for before, after in zip(old.values, new.values, strict=True)
        ]
        for before, after, size_of_both in pairs:
            if abs(before - after) > RELATIVE_TOLERANCE * size_of_both:
                return f"output {index} is {after:.9g} where it was {before:.9g}"
    return None


def _print_of(output: Tensor) -> OutputPrint:
    real = torch.view_as_real(output.detach().resolve_conj()) if output.is_complex() else output.detach()
    flat = real.double().flatten()
    if not bool(flat.isfinite().all()):
        raise ValueError("the model's outputs are not finite numbers")
    places = torch.linspace(0, max(0, len(flat) - 1), min(_NUM_VALUES, len(flat))).long()
    return OutputPrint(
        shape=tuple(output.shape),
        mean=float(flat.mean()) if len(flat) else 0.0,
        l2=float(flat.norm()),
        values=tuple(flat[places].tolist()),
    )
