"""Chooses one option for each dynamic layer for a number of multiply-adds, and fits the chosen maps in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import StageError
from toolkit.blocks.dropped import put_module, take_over_hooks
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.redundancy.moments import ChannelMoments
from toolkit.redundancy.time import TimeMoments
from toolkit.stages.va_red.wrap import put_channels, put_steps, rows_of
from toolkit.stand_ins.decisions import dynamic_layers
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.stand_ins.registry import make_stand_in

Option = tuple[int, int]

NUM_BUCKETS = 4000  # into which multiply-adds are rounded up while options are chosen


def score_options(
    model: nn.Module,
    divergence: Callable[[nn.Module], float],
    costs: Mapping[str, Mapping[Option, int]],
    console: Console,
) -> dict[str, dict[Option, float]]:
    """Returns how far the model's predictions move if one layer alone takes an option, for each layer and option."""
    layers = dynamic_layers(model)
    total = sum(len(options) - 1 for options in costs.values())
    errors: dict[str, dict[Option, float]] = {}
    with console.progress("scoring options", total) as progress:
        for name, options in costs.items():
            layer, errors[name] = layers[name], {}
            for option in options:
                if option == (0, 0):
                    errors[name][option] = 0.0
                    continue
                take(layer, option)
                errors[name][option] = divergence(model)
                progress.advance()
            take(layer, (0, 0))
    return errors


def cheapest(
    errors: Mapping[str, Mapping[Option, float]], costs: Mapping[str, Mapping[Option, int]], most: int
) -> dict[str, Option]:
    """Returns one option per layer with the smallest sum of errors, among those that cost at most `most` together.

    Multiply-adds are rounded up to buckets, so that the limit is kept and the sum is nearly the smallest.

    Raises:
        StageError: the cheapest options together cost more.
    """
    least = sum(min(options.values()) for options in costs.values())
    if least > most:
        raise StageError(f"the layers take {least:,} multiply-adds at the least, and {most:,} are left for them")
    bucket = max(1.0, most / NUM_BUCKETS)
    size = int(most / bucket)
    best = np.zeros(size + 1)
    taken: list[np.ndarray] = []
    names = list(costs)
    for name in names:
        options = list(costs[name])
        table = np.full((len(options), size + 1), np.inf)
        for row, option in enumerate(options):
            used = math.ceil(costs[name][option] / bucket - 1e-9)
            if used <= size:
                table[row, used:] = best[: size + 1 - used] + errors[name][option]
        taken.append(table.argmin(0))
        best = table.min(0)
    if not math.isfinite(best[size]):  # rounded up they do not fit, and unrounded only the cheapest ones do
        return {name: min(options, key=options.__getitem__) for name, options in costs.items()}
    left, chosen = size, dict[str, Option]()
    for name, rows in zip(reversed(names), reversed(taken), strict=True):
        option = list(costs[name])[rows[left]]
        chosen[name] = option
        left -= math.ceil(costs[name][option] / bucket - 1e-9)
    return {name: chosen[name] for name in names}


def take(layer: DynamicConv, option: Option) -> None:
    """Makes an option the one that the layer takes."""
    layer.arguments = layer.arguments.model_copy(update={"chosen": option})


def settle(model: nn.Module, originals: Mapping[str, nn.Module], chosen: Mapping[str, Option]) -> list[str]:
    """Replaces each dynamic layer by one with its chosen option alone, and returns the names of those that remain.

    A layer that computes everything becomes the convolution again that it was.
    """
    remaining = []
    for name, option in chosen.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, DynamicConv)
        new = originals[name] if option == (0, 0) else _alone(originals[name], layer, option)
        new.train(layer.training)
        take_over_hooks(layer, new)
        put_module(model, name, new)
        if option != (0, 0):
            remaining.append(name)
    return remaining


@torch.no_grad()
def _alone(conv: nn.Module, layer: DynamicConv, option: Option) -> DynamicConv:
    """Returns the layer with one option: filters that it never computes are gone."""
    old = layer.arguments
    stride, number = old.steps[option[0]], old.channels[option[1]]
    sources = (old.sources[option[1]],) if old.sources else ()
    changes = {"steps": (stride,), "channels": (number,), "chosen": (0, 0), "sources": sources}
    new = make_stand_in(conv, type(old).model_validate({**old.model_dump(), **changes}))
    assert isinstance(new, DynamicConv)
    kept = torch.tensor(old.computed(number), device=layer.weight.device)
    new.weight.copy_(layer.weight[kept])
    if layer.bias is not None and new.bias is not None:
        new.bias.copy_(layer.bias[kept])
    for table, key in (("over_channels", str(number)), ("over_steps", str(stride))):
        if key in getattr(layer, table):
            getattr(new, table)[key].load_state_dict(getattr(layer, table)[key].state_dict())
    return new


@torch.no_grad()
def refit(
    model: nn.Module, reference: nn.Module, names: Sequence[str], batches: Callable[[], Iterable[Inputs]]
) -> None:
    """Fits the maps of constant layers again, in execution order, each behind the layers that were fitted before.

    The goal of a map is the output of the same layer of `reference`; its inputs come from the model itself.
    """
    with evaluating(model, reference):
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, DynamicConv)
            stride, number = layer.arguments.steps[0], layer.arguments.channels[0]
            width, device = layer.arguments.width, layer.weight.device
            if layer.over_channels:
                moments = ChannelMoments(width, device)
                for stream, goal in _pairs(model, reference, name, batches()):
                    mixed = goal[:, :, ::stride].clone()
                    mixed[:, layer.arguments.computed(number)] = layer.convolve(stream, number, stride)
                    moments.add(rows_of(mixed))
                put_channels(layer, number, moments)
            if stride > 1:
                between = TimeMoments(stride, width, device)
                for stream, goal in _pairs(model, reference, name, batches()):
                    computed = layer.convolve(stream, number, stride)
                    if layer.over_channels:
                        computed = layer.rebuild(number)(computed)
                    between.add(goal, computed)
                put_steps(layer, stride, between)


def _pairs(
    model: nn.Module, reference: nn.Module, name: str, batches: Iterable[Inputs]
) -> Iterable[tuple[Tensor, Tensor]]:
    """Yields the layer's input in the model, and its output in the reference."""
    before, behind = ActivationPoint(name, "input"), ActivationPoint(name, "output")
    for inputs in batches:
        yield capture(model, inputs, [before])[before], capture(reference, inputs, [behind])[behind]
