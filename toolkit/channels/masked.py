"""Proof of a cut: the narrow model computes what the wide one does when nothing reads the channels that are gone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.cut import Choice
from toolkit.channels.groups import Slot
from toolkit.channels.layers import input_weights, is_grouped, output_weights
from toolkit.observe import evaluating, tensors_in, without_fast_path

TOLERANCE = 1e-3  # of the outputs' scale; another order of summation makes 1e-5 in deep networks


def cut_error(wide: nn.Module, narrow: nn.Module, choices: Sequence[Choice], inputs: tuple[Tensor, ...]) -> float:
    """Largest difference between the narrow model and the masked wide one, relative to the outputs' root mean square.

    Raises:
        ValueError: the narrow model does not run, or gives outputs of other shapes; with its own words.
    """
    masked = copy.deepcopy(wide)
    for choice in choices:
        _mask(masked, narrow, choice)
    with evaluating(masked, narrow), without_fast_path(), torch.no_grad():
        expected = tensors_in(masked(*inputs))
        try:
            found = tensors_in(narrow(*inputs))
        except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
            raise ValueError(f"its forward code does not run with the narrower layers: {_short(error)}") from error
    if [part.shape for part in found] != [part.shape for part in expected]:
        raise ValueError("its outputs have another shape with the narrower layers")
    errors = [_relative(one, other) for one, other in zip(found, expected, strict=True)]
    return max(errors, default=0.0)


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words[:160]


def _relative(one: Tensor, other: Tensor) -> float:
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other) else float("inf")
    scale = other.double().square().mean().sqrt().clamp(min=1e-12)
    error = float((one.double() - other.double()).abs().max() / scale) if one.numel() else 0.0
    return float("inf") if math.isnan(error) else error


@torch.no_grad()
def _mask(masked: nn.Module, narrow: nn.Module, choice: Choice) -> None:
    for slot in choice.group.slots:
        layer, gone = masked.get_submodule(slot.module), choice.gone(slot)
        if slot.role == "in":
            input_weights(layer)[gone] = 0.0
        elif slot.role == "out" and choice.inner:  # queries and keys multiply within a head
            output_weights(layer)[gone] = 0.0
            if isinstance(getattr(layer, "bias", None), Tensor):
                layer.bias[gone] = 0.0  # type: ignore[operator]
        elif slot.role == "through" and not is_grouped(layer):
            layer.forward = _scattered(narrow.get_submodule(slot.module), slot, choice.kept(slot))


def _scattered(small: nn.Module, slot: Slot, kept: list[int]) -> Callable[..., Tensor]:
    """The narrow layer's work on the channels that are left, zeros for the others: its statistics know only those."""

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        indices = torch.tensor(kept, device=x.device)
        out: Tensor = small(x.index_select(slot.dim, indices), *args, **kwargs)
        return torch.zeros_like(x, dtype=out.dtype).index_copy_(slot.dim, indices, out)

    return forward
