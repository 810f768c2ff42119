"""Decides which convolutions can be dynamic, and which options each of them offers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from toolkit.blocks.dropped import stand_ins_of
from toolkit.channels.patterns import matches_any
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, watched
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.convolutions import CONVOLUTION_TYPES, Conv, padding_of


@dataclass(frozen=True)
class Offered:
    """Holds what a convolution can offer.

    steps: the temporal strides, 1 first; only (1,) where there is no time axis.
    channels: the numbers of computed channels, all of them first.
    rebuilt_by: the map that rebuilds the other channels.
    """

    steps: tuple[int, ...]
    channels: tuple[int, ...]
    rebuilt_by: Literal["pointwise", "depthwise"]


def offers(model: nn.Module, inputs: tuple[Tensor, ...], config: VaRed) -> tuple[dict[str, Offered], dict[str, str]]:
    """Returns what each convolution offers, in execution order, and why others cannot be dynamic, by name."""
    order = execution_order(model, inputs)
    calls = Counter(order)
    names = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTION_TYPES + _TRANSPOSED)]
    shapes = _output_shapes(model, names, inputs)
    offered: dict[str, Offered] = {}
    refused: dict[str, str] = {}
    inside = [f"{place}." for place in stand_ins_of(model)]
    for name in sorted(names, key=lambda name: order.index(name) if name in calls else len(order)):
        if any(name.startswith(place) for place in inside):
            continue
        if not matches_any(name, config.include) or matches_any(name, config.exclude):
            continue
        fault = _fault(model, name, calls[name], shapes.get(name))
        if fault is None:
            conv = model.get_submodule(name)
            offered[name] = _offer(conv, shapes[name], config)
            if offered[name].steps == (1,) and len(offered[name].channels) == 1:
                fault = "no option of it is cheaper than the convolution itself"
                del offered[name]
        if fault is not None:
            refused[name] = fault
    return offered, refused


_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _output_shapes(model: nn.Module, names: Sequence[str], inputs: tuple[Tensor, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    points = [ActivationPoint(name, "output") for name in names]
    with (
        torch.no_grad(),
        watched(model, points, lambda point, value: shapes.update({point.module: tuple(value.shape)})),
    ):
        model(*inputs)
    return shapes


def _fault(model: nn.Module, name: str, calls: int, shape: tuple[int, ...] | None) -> str | None:
    """Returns why a convolution cannot be dynamic, in words; None if it can."""
    module = model.get_submodule(name)
    if isinstance(module, _TRANSPOSED):
        return "it is a transposed convolution, whose output steps do not follow from single input steps"
    if type(module) not in CONVOLUTION_TYPES:
        return f"it is a {type(module).__name__}, which may compute something else than a convolution"
    assert isinstance(module, Conv)
    if calls != 1:
        return "it is not called for the example inputs" if not calls else f"it is called {calls} times in one pass"
    if shape is None or len(shape) != len(module.kernel_size) + 2:
        return "it is run on inputs without a batch"
    return _fault_of_weights(model, module)


def _fault_of_weights(model: nn.Module, module: Conv) -> str | None:
    """Returns whether a convolution shares its weights or pads in an unusual way, in words; None if it does not."""
    names = [other for other, part in model.named_modules(remove_duplicate=False) if part is module]
    if len(names) > 1:
        return f"it stands in several places: {', '.join(names)}"
    own = {id(part) for part in module.parameters(recurse=False)}
    owners = [
        f"{place}.{leaf}".lstrip(".")
        for place, part in model.named_modules()
        for leaf, value in part.named_parameters(recurse=False)
        if id(value) in own and part is not module
    ]
    if owners:
        return f"it shares its weights with {owners[0]}"
    try:
        padding_of(module)
    except ValueError as error:
        return str(error)
    return None


def _offer(conv: nn.Module, shape: Sequence[int], config: VaRed) -> Offered:
    assert isinstance(conv, Conv)
    has_time, length = len(conv.kernel_size) != 2, shape[2]
    steps = tuple(stride for stride in config.steps if stride == 1 or (has_time and stride < length))
    width, per_channel = conv.out_channels, math.prod(conv.weight.shape[1:])
    quantum = conv.groups if width > conv.groups else 1
    numbers = sorted({_number(width, ratio, quantum) for ratio in config.channels}, reverse=True)
    most = max((number for number in numbers if number < width), default=0)
    pointwise = config.channel_map == "pointwise" or (config.channel_map == "auto" and per_channel >= 2 * most)
    cheap = [
        number
        for number in numbers
        if number == width or (number if pointwise else 1) * (width - number) < per_channel * (width - number)
    ]
    return Offered(steps or (1,), tuple(cheap), "pointwise" if pointwise else "depthwise")


def _number(width: int, ratio: float, quantum: int) -> int:
    """Returns the number of computed channels for a share of them: a multiple of `quantum`, rounded up."""
    return min(width, quantum * max(1, math.ceil(ratio * width / quantum - 1e-9)))


def words_of(refused: Mapping[str, str]) -> str:
    """Returns up to three reasons in words."""
    return "; ".join(f"{name}: {reason}" for name, reason in list(refused.items())[:3])
