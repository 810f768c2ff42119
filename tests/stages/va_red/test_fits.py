"""Cheap maps are fitted in closed form, computed channels are chosen well, and options for a budget are the best."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.conv_nets import clips, conv_net
from toolkit.base.errors import StageError
from toolkit.stages.va_red.constant import cheapest
from toolkit.stages.va_red.options import offers
from toolkit.stages.va_red.settings import VaRed
from toolkit.stages.va_red.wrap import collect, wrap
from toolkit.stand_ins.decisions import dynamic_layers
from toolkit.stand_ins.dynamic_conv import DynamicConv

SETTINGS = {"scope": "constant", "macs_ratio": 0.5}


def wrapped(net: nn.Module, inputs: Tensor, **settings: object) -> dict[str, DynamicConv]:
    config = VaRed.model_validate({**SETTINGS, **settings})
    offered, _ = offers(net, (inputs,), config)
    moments = collect(net, offered, [(inputs[: len(inputs) // 2],), (inputs[len(inputs) // 2 :],)])
    wrap(net, offered, moments, config)
    return dynamic_layers(net)


def errors_on(layer: DynamicConv, stream: Tensor, option: tuple[int, int]) -> tuple[float, float, float]:
    """Squared errors of the option's output, of zeros in its place, and of the last computed step repeated."""
    full = layer.compute(stream, 0, 0)
    step, part = option
    repeated = full[:, :, torch.arange(full.shape[2]) // layer.arguments.steps[step] * layer.arguments.steps[step]]
    zeros = full.clone()
    zeros[:, layer.arguments.rebuilt(layer.arguments.channels[part])] = 0.0
    outputs = (layer.compute(stream, *option), zeros, repeated)
    return tuple(float((output - full).square().sum()) for output in outputs)  # type: ignore[return-value]


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channel_map", ["pointwise", "depthwise"])
@pytest.mark.parametrize("channel_choice", ["explained", "first"])
def test_fitted_maps_are_never_worse_than_zeros_and_repetition(
    dims: int, channel_map: str, channel_choice: str
) -> None:
    net, inputs = conv_net(dims), clips(12, dims)
    streams: dict[str, Tensor] = {}
    layers = wrapped(net, inputs, channel_map=channel_map, channel_choice=channel_choice)
    handles = [
        layer.register_forward_pre_hook(lambda _, args, n=name: streams.update({n: args[0]}))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        net(inputs)
        for handle in handles:
            handle.remove()
        assert layers
        for name, layer in layers.items():
            for part in range(1, len(layer.arguments.channels)):
                fitted, zeros, _ = errors_on(layer, streams[name], (0, part))
                assert fitted <= zeros * 1.0001
            for step in range(1, len(layer.arguments.steps)):
                fitted, _, repeated = errors_on(layer, streams[name], (step, 0))
                assert fitted <= repeated * 1.0001


@pytest.mark.parametrize("groups", [1, 2])
def test_planted_dependence_of_filters_is_found_and_rebuilt_exactly(groups: int) -> None:
    """Half of the filters are sums of the others; every second one, so that the first half is a bad choice."""
    torch.manual_seed(0)
    conv = nn.Conv1d(6, 8, 3, padding=1, groups=groups)
    in_each = 8 // groups
    with torch.no_grad():
        for group in range(groups):
            rows = slice(group * in_each, (group + 1) * in_each)
            basis = torch.randn(in_each // 2, *conv.weight.shape[1:])
            mix = torch.randn(in_each, in_each // 2)
            conv.weight[rows] = (mix @ basis.flatten(1)).reshape(in_each, *conv.weight.shape[1:])
    inputs = torch.randn(16, 6, 30)
    net = nn.Sequential(conv).eval()
    layers = wrapped(net, inputs, channels=[1.0, 0.5], channel_map="pointwise")
    layer = layers["0"]
    fresh = torch.randn(4, 6, 30)
    with torch.no_grad():
        full, half = layer.compute(fresh, 0, 0), layer.compute(fresh, 0, 1)
    assert layer.arguments.channels == (8, 4)
    assert float((half - full).norm() / full.norm()) < 1e-4


def test_signals_that_do_not_change_are_rebuilt_from_every_fourth_step() -> None:
    net = nn.Sequential(nn.Conv1d(4, 4, 1)).eval()
    layer = wrapped(net, torch.randn(12, 4, 1).expand(-1, -1, 20))["0"]
    still = torch.randn(3, 4, 1).expand(-1, -1, 20)
    with torch.no_grad():
        torch.testing.assert_close(layer.compute(still, 2, 0), layer.compute(still, 0, 0))


def test_dead_channels_and_steps_without_variance_give_finite_maps() -> None:
    conv = nn.Conv1d(3, 8, 3, padding=1)
    with torch.no_grad():
        conv.weight[::2] = 0.0
        conv.bias[::4] = 0.0
    layer = wrapped(nn.Sequential(conv).eval(), torch.randn(8, 3, 20))["0"]
    assert all(bool(part.isfinite().all()) for part in layer.parameters())
    with torch.no_grad():
        full, half = layer.compute(torch.randn(2, 3, 20), 0, 0), layer.compute(torch.randn(2, 3, 20), 0, 1)
    torch.testing.assert_close(half[:, ::2], full[:, ::2])


def test_reported_errors_are_those_of_what_is_rebuilt() -> None:
    net, inputs = conv_net(1), clips(12)
    config = VaRed.model_validate(SETTINGS)
    offered, _ = offers(net, (inputs,), config)
    errors = wrap(net, offered, collect(net, offered, [(inputs,)]), config)["stem"]
    layer = dynamic_layers(net)["stem"]

    def share(option: tuple[int, int], rebuilt: Tensor) -> float:
        """The squared error as a share of the variance, which is about the mean of each offset and channel."""
        missed = (layer.compute(inputs, *option) - full).square().sum()
        return float(missed / rebuilt)

    with torch.no_grad():
        full = layer.compute(inputs, 0, 0)
        for part, number in enumerate(layer.arguments.channels[1:], 1):
            rest = full[:, layer.arguments.rebuilt(number)]
            variance = (rest - rest.mean((0, 2), keepdim=True)).square().sum()
            assert errors.channels[str(number)] == pytest.approx(share((0, part), variance), rel=1e-3)
        for step, stride in enumerate(layer.arguments.steps[1:], 1):
            between = [full[:, :, offset::stride] for offset in range(1, stride)]
            variance = sum(
                ((part - part.mean((0, 2), keepdim=True)).square().sum() for part in between), torch.zeros(())
            )
            assert errors.steps[str(stride)] == pytest.approx(share((step, 0), variance), rel=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_options_for_a_budget_are_the_best_of_all_combinations(seed: int) -> None:
    rng = random.Random(seed)
    options = [(0, 0), (0, 1), (1, 0), (1, 1)]
    costs = {f"layer{at}": {option: rng.randrange(1, 60) for option in options} for at in range(4)}
    errors = {name: {option: rng.random() for option in options} for name in costs}
    most = sum(min(of_layer.values()) for of_layer in costs.values()) + rng.randrange(0, 60)
    chosen = cheapest(errors, costs, most)
    possible = [
        sum(errors[name][option] for name, option in zip(costs, combination, strict=True))
        for combination in itertools.product(options, repeat=4)
        if sum(costs[name][option] for name, option in zip(costs, combination, strict=True)) <= most
    ]
    assert sum(costs[name][option] for name, option in chosen.items()) <= most
    assert sum(errors[name][option] for name, option in chosen.items()) == pytest.approx(min(possible))


def test_a_budget_below_the_cheapest_options_is_refused_with_both_numbers() -> None:
    costs = {"layer": {(0, 0): 100, (0, 1): 40}}
    with pytest.raises(StageError, match="40 multiply-adds at the least, and 39"):
        cheapest({"layer": {(0, 0): 0.0, (0, 1): 1.0}}, costs, 39)
