"""Puts dynamic convolutions in the places of convolutions, with maps that are fitted to calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.blocks.dropped import put_module, take_over_hooks
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.stages.va_red.moments import OutputMoments, StepMoments, channel_order
from toolkit.stages.va_red.options import Offered
from toolkit.stages.va_red.settings import VaRed
from toolkit.stand_ins.convolutions import Conv
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments, GateArguments
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.stand_ins.registry import make_stand_in


@dataclass
class LayerMoments:
    """Holds what is collected of the outputs of one convolution, and the shape of its input."""

    channels: OutputMoments = field(default_factory=OutputMoments)
    steps: dict[int, StepMoments] = field(default_factory=dict)
    shape: tuple[int, ...] = ()


@torch.no_grad()
def collect(model: nn.Module, offered: Mapping[str, Offered], batches: Iterable[Inputs]) -> dict[str, LayerMoments]:
    """Returns the moments of the outputs of all convolutions that can be dynamic, over the batches."""
    moments = {
        name: LayerMoments(steps={stride: StepMoments(stride) for stride in offer.steps if stride > 1})
        for name, offer in offered.items()
    }

    def note(point: ActivationPoint, value: Tensor) -> None:
        layer = moments[point.module]
        if point.side == "input":
            layer.shape = tuple(value.shape)
            return
        if len(offered[point.module].channels) > 1:
            layer.channels.add(value)
        for stride, steps in layer.steps.items():
            steps.add(value[:, :, ::stride], value)

    points = [ActivationPoint(name, side) for name in offered for side in ("input", "output")]
    with evaluating(model), watched(model, points, note):
        for inputs in batches:
            model(*inputs)
    return moments


def wrap(model: nn.Module, offered: Mapping[str, Offered], moments: Mapping[str, LayerMoments], config: VaRed) -> None:
    """Replaces the convolutions by dynamic ones in place, which compute everything until something else is chosen."""
    for name, offer in offered.items():
        conv = model.get_submodule(name)
        assert isinstance(conv, Conv)
        new = _dynamic(conv, offer, moments[name], config)
        new.train(conv.training)
        take_over_hooks(conv, new)
        put_module(model, name, new)


def _dynamic(conv: Conv, offer: Offered, moments: LayerMoments, config: VaRed) -> DynamicConv:
    width = conv.out_channels
    order, sources = list(range(width)), tuple[tuple[int, ...], ...]()
    if len(offer.channels) > 1:
        by_explaining = config.channel_choice == "explained"
        order = channel_order(moments.channels.covariance().cpu(), conv.groups, by_explaining=by_explaining)
        if offer.rebuilt_by == "depthwise":
            sources = tuple(
                tuple(moments.channels.sources(sorted(order[:number]), sorted(order[number:])))
                for number in offer.channels
            )
    arguments = DynamicConvArguments(
        steps=offer.steps,
        channels=offer.channels,
        order=tuple(order),
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
    for stride, steps in moments.steps.items():
        put_steps(new, stride, steps)
    for number in offer.channels[1:]:
        put_channels(new, number, moments.channels)
    return new


@torch.no_grad()
def put_steps(layer: DynamicConv, stride: int, moments: StepMoments) -> None:
    """Puts the fitted map for a stride into the layer."""
    between = layer.between(stride)
    weight, bias = moments.fit()
    between.weight.copy_(weight)
    between.bias.copy_(bias)


@torch.no_grad()
def put_channels(layer: DynamicConv, number: int, moments: OutputMoments) -> None:
    """Puts the fitted map for a number of computed channels into the layer."""
    rebuild, arguments = layer.rebuild(number), layer.arguments
    computed, rebuilt = arguments.computed(number), arguments.rebuilt(number)
    if arguments.rebuilt_by == "pointwise":
        weight, bias = moments.fit(computed, rebuilt)
    else:
        weight, bias = moments.fit_single(arguments.sources[arguments.channels.index(number)], rebuilt)
    rebuild.weight.copy_(weight)
    rebuild.bias.copy_(bias)


def channel_errors(layer: DynamicConv, moments: LayerMoments) -> dict[str, float]:
    """Returns the squared error of each map over channels as a share of the output's variance, on calibration data."""
    arguments, errors = layer.arguments, {}
    for at, number in enumerate(arguments.channels):
        if number == arguments.width:
            continue
        rebuild, computed = layer.rebuild(number), arguments.computed(number)
        rebuilt, weight = arguments.rebuilt(number), rebuild.weight.detach().double()
        if arguments.rebuilt_by == "depthwise":
            places = [computed.index(source) for source in arguments.sources[at]]
            full = weight.new_zeros(len(rebuilt), number)
            full[range(len(rebuilt)), places] = weight
            weight = full
        errors[str(number)] = moments.channels.error(weight, rebuild.bias.detach().double(), computed, rebuilt)
    return errors


def step_errors(layer: DynamicConv, moments: LayerMoments) -> dict[str, float]:
    """Returns the squared error of each map over time as a share of the output's variance, on calibration data."""
    errors = {}
    for stride, steps in moments.steps.items():
        between = layer.between(stride)
        errors[str(stride)] = steps.error(between.weight.detach().double(), between.bias.detach().double())
    return errors
