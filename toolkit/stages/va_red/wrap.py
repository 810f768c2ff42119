"""Puts dynamic convolutions in the places of convolutions, with maps that are fitted to calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.blocks.dropped import put_module, take_over_hooks
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.redundancy.channels import best_sources, channel_choice, linear_rebuild, single_rebuild
from toolkit.redundancy.moments import ChannelMoments
from toolkit.redundancy.time import TimeMoments, time_rebuild
from toolkit.stages.va_red.options import Offered
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.convolutions import Conv
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments, GateArguments
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.stand_ins.registry import make_stand_in


@dataclass
class LayerMoments:
    """Holds what is collected of the outputs of one convolution, and the shape of its input."""

    channels: ChannelMoments
    steps: dict[int, TimeMoments]
    shape: tuple[int, ...] = ()


@dataclass
class MapErrors:
    """Holds the squared errors of a layer's maps on calibration data, as shares of the variance of what they rebuild.

    channels: by the number of computed channels.
    steps: by the temporal stride.
    """

    channels: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def collect(model: nn.Module, offered: Mapping[str, Offered], batches: Iterable[Inputs]) -> dict[str, LayerMoments]:
    """Returns the moments of the outputs of all convolutions that can be dynamic, over the batches."""
    moments: dict[str, LayerMoments] = {}
    for name, offer in offered.items():
        weight = model.get_submodule(name).get_parameter("weight")
        width, device = len(weight), weight.device
        steps = {stride: TimeMoments(stride, width, device) for stride in offer.steps if stride > 1}
        moments[name] = LayerMoments(ChannelMoments(width, device), steps)

    def note(point: ActivationPoint, value: Tensor) -> None:
        layer = moments[point.module]
        if point.side == "input":
            layer.shape = tuple(value.shape)
            return
        if len(offered[point.module].channels) > 1:
            layer.channels.add(rows_of(value))
        for steps in layer.steps.values():
            steps.add(value)

    points = [ActivationPoint(name, side) for name in offered for side in ("input", "output")]
    with evaluating(model), watched(model, points, note):
        for inputs in batches:
            model(*inputs)
    return moments


def rows_of(output: Tensor) -> Tensor:
    """Returns an output [batch, channels, ...] as rows [places, channels]."""
    return output.movedim(1, -1).flatten(0, -2)


def wrap(
    model: nn.Module, offered: Mapping[str, Offered], moments: Mapping[str, LayerMoments], config: VaRed
) -> dict[str, MapErrors]:
    """Replaces the convolutions by dynamic ones in place, and returns how well their maps fit, by the layer's name.

    They compute everything until something else is chosen.
    """
    errors: dict[str, MapErrors] = {}
    for name, offer in offered.items():
        conv = model.get_submodule(name)
        assert isinstance(conv, Conv)
        new = _dynamic(conv, offer, moments[name].channels, config)
        errors[name] = MapErrors(
            {str(number): put_channels(new, number, moments[name].channels) for number in offer.channels[1:]},
            {str(stride): put_steps(new, stride, steps) for stride, steps in moments[name].steps.items()},
        )
        new.train(conv.training)
        take_over_hooks(conv, new)
        put_module(model, name, new)
    return errors


def _dynamic(conv: Conv, offer: Offered, moments: ChannelMoments, config: VaRed) -> DynamicConv:
    """Returns the dynamic convolution with the weights of `conv`, and maps that are not fitted yet."""
    order, covariance = _order(conv, offer, moments, config), moments.covariance
    sources: tuple[tuple[int, ...], ...] = ()
    if offer.rebuilt_by == "depthwise":
        sources = tuple(best_sources(covariance, sorted(order[:number])) for number in offer.channels)
    arguments = DynamicConvArguments(
        steps=offer.steps,
        channels=offer.channels,
        order=order,
        inputs=conv.weight.shape[1],
        groups=conv.groups,
        rebuilt_by=offer.rebuilt_by,
        sources=sources,
        gate=GateArguments(hidden=config.hidden, pooling=config.pooling) if config.scope == "input" else None,
    )
    new = make_stand_in(conv, arguments)
    assert isinstance(new, DynamicConv)
    with torch.no_grad():
        new.weight.copy_(conv.weight)
        if conv.bias is not None and new.bias is not None:
            new.bias.copy_(conv.bias)
    return new


def _order(conv: Conv, offer: Offered, moments: ChannelMoments, config: VaRed) -> tuple[int, ...]:
    """Returns all output channels, those that are computed first; every group has its next one before any has more."""
    width, groups = conv.out_channels, conv.groups
    if len(offer.channels) == 1:
        return tuple(range(width))
    if config.channel_choice == "explained":
        return channel_choice(moments.covariance, width, groups)
    return tuple(group * (width // groups) + place for place in range(width // groups) for group in range(groups))


@torch.no_grad()
def put_steps(layer: DynamicConv, stride: int, moments: TimeMoments) -> float:
    """Puts the fitted map for a stride into the layer, and returns its error as in `MapErrors`."""
    fitted, between = time_rebuild(moments), layer.between(stride)
    between.weight.copy_(fitted.weights)
    between.bias.copy_(fitted.bias)
    return 1.0 - fitted.explained


@torch.no_grad()
def put_channels(layer: DynamicConv, number: int, moments: ChannelMoments) -> float:
    """Puts the fitted map for a number of computed channels into the layer, and returns its error as in `MapErrors`."""
    rebuild, arguments = layer.rebuild(number), layer.arguments
    computed = arguments.computed(number)
    if arguments.rebuilt_by == "pointwise":
        fitted = linear_rebuild(moments.covariance, moments.mean, computed)
        rebuild.weight.copy_(fitted.weights)
    else:
        sources = arguments.sources[arguments.channels.index(number)]
        fitted = single_rebuild(moments.covariance, moments.mean, computed, sources)
        rebuild.weight.copy_(fitted.weights.sum(1))  # each row holds one weight
    rebuild.bias.copy_(fitted.bias)
    return 1.0 - fitted.explained
