"""Proof of a cut: the narrow model computes what the wide one does when nothing reads the channels that are gone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.cut import KeptUnits
from toolkit.channels.groups import Slot
from toolkit.channels.layers import channel_dim, input_weights, is_grouped, output_weights
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in

TOLERANCE = 1e-3  # of the outputs' scale; another order of summation makes 1e-5 in deep networks


def cut_error(wide: nn.Module, narrow: nn.Module, choices: Sequence[KeptUnits], inputs: tuple[Tensor, ...]) -> float:
    """Largest difference between the narrow model and the masked wide one, relative to the root mean square.

    The models' outputs are compared, and those of every layer that reads what was cut: deep in a network a fault may
    be scaled down to nothing before it reaches the outputs.

    Raises:
        ValueError: the narrow model does not run, or gives outputs of other shapes; with its own words.
    """
    masked = copy.deepcopy(wide)
    for choice in choices:
        _mask(masked, narrow, choice)
    readers = sorted({name for choice in choices for name in choice.group.consumers})
    left = {slot.module: choice.kept(slot) for choice in choices for slot in choice.group.slots if slot.role == "out"}
    with evaluating(masked, narrow), without_fast_path(), torch.no_grad():
        expected = _run(masked, inputs, readers, left)
        try:
            found = _run(narrow, inputs, readers, {})
        except (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError) as error:
            raise ValueError(f"its forward code does not run with the narrower layers: {_short(error)}") from error
    if [part.shape for part in found] != [part.shape for part in expected]:
        raise ValueError("its outputs have another shape with the narrower layers")
    errors = [_relative(one, other) for one, other in zip(found, expected, strict=True)]
    return max(errors, default=0.0)


def _run(
    model: nn.Module, inputs: tuple[Tensor, ...], layers: Sequence[str], left: Mapping[str, list[int]]
) -> list[Tensor]:
    """The outputs of the model and then of the layers, of which only the channels that are `left`."""
    seen: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, out, n=name: seen.update({n: out.clone()}))
        for name in layers
    ]
    try:
        outputs = tensors_in(model(*inputs))
    finally:
        for handle in handles:
            handle.remove()
    for name, kept in left.items():
        if name in seen:
            seen[name] = seen[name].index_select(
                channel_dim(model.get_submodule(name)), torch.tensor(kept, device=seen[name].device)
            )
    return [*outputs, *(seen[name] for name in layers if name in seen)]


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
def _mask(masked: nn.Module, narrow: nn.Module, choice: KeptUnits) -> None:
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
