"""A dynamic convolution computes what the sub-sampled full convolution and the cheap maps say, at the cost it says."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from tests.helpers.conv_nets import CONVS
from toolkit.measure.macs import count_macs
from toolkit.stand_ins.decisions import choices_noted
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments, GateArguments
from toolkit.stand_ins.dynamic_conv import DynamicConv
from toolkit.stand_ins.registry import make_stand_in


@dataclass
class Drawn:
    conv: nn.Module
    layer: DynamicConv
    stream: Tensor


def drawn(seed: int, *, gate: bool = False, dims: int | None = None) -> Drawn:
    """A random convolution, the dynamic one with its weights and random maps, and an input."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    dims = dims or rng.choice([1, 2, 3])
    groups = rng.choice([1, 1, 2, 4])
    inputs, in_each = rng.choice([1, 2, 3]), rng.choice([1, 2, 4])
    if groups == 1:
        in_each = rng.choice([4, 6, 8])
    width = groups * in_each
    kernel = tuple(rng.choice([1, 2, 3]) for _ in range(dims))
    padding: str | tuple[int, ...] = tuple(rng.choice([0, 1]) for _ in range(dims))
    stride = tuple(rng.choice([1, 2]) for _ in range(dims))
    dilation = tuple(rng.choice([1, 2]) for _ in range(dims))
    if rng.random() < 0.2:
        kernel, padding, stride = (3,) * dims, "same", (1,) * dims
    settings = {
        "padding": padding,
        "stride": stride,
        "dilation": dilation,
        "groups": groups,
        "bias": rng.random() < 0.5,
    }
    conv = CONVS[dims](inputs * groups, width, kernel, **settings)
    quantum = groups if in_each > 1 else 1
    numbers = tuple(sorted({width, quantum * max(1, width // quantum // 2), quantum}, reverse=True))
    order = [group * in_each + at for at in rng.sample(range(in_each), in_each) for group in range(groups)]
    pointwise = rng.random() < 0.5
    sources = [[rng.choice(order[:number]) for _ in range(width - number)] for number in numbers]
    arguments = DynamicConvArguments(
        steps=(1,) if dims == 2 else (1, 2, 4),
        channels=numbers,
        order=tuple(order),
        inputs=inputs,
        groups=groups,
        rebuilt_by="pointwise" if pointwise else "depthwise",
        sources=() if pointwise else tuple(map(tuple, sources)),
        gate=GateArguments(hidden=4, pooling=rng.choice(["average", "average_and_change"])) if gate else None,
    )
    layer = make_stand_in(conv, arguments)
    assert isinstance(layer, DynamicConv)
    with torch.no_grad():
        for part in layer.parameters():
            part.normal_()
        layer.weight.copy_(conv.weight)
        if layer.bias is not None:
            layer.bias.copy_(conv.bias)
    sizes = [rng.choice([9, 10, 13]) for _ in range(dims)]
    return Drawn(conv.eval(), layer.eval(), torch.randn(5, inputs * groups, *sizes))


def by_hand(case: Drawn, step: int, part: int) -> Tensor:
    """The full convolution, of which some channels and steps are kept and the others rebuilt one by one, in loops."""
    full, arguments, layer = case.conv(case.stream), case.layer.arguments, case.layer
    number, stride = arguments.channels[part], arguments.steps[step]
    output = full.clone()
    computed, rebuilt = sorted(arguments.order[:number]), sorted(arguments.order[number:])
    if rebuilt:
        rebuild = layer.over_channels[str(number)]
        for row, channel in enumerate(rebuilt):
            output[:, channel] = rebuild.bias[row]
            if arguments.rebuilt_by == "pointwise":
                for column, other in enumerate(computed):
                    output[:, channel] += rebuild.weight[row, column] * full[:, other]
            else:
                output[:, channel] += rebuild.weight[row] * full[:, arguments.sources[part][row]]
    if stride == 1:
        return output
    between, steps = layer.over_steps[str(stride)], output.clone()
    for at in range(output.shape[2]):
        offset, before = at % stride, at - at % stride
        if offset:
            behind = before + stride if before + stride < output.shape[2] else before
            weight, bias = between.weight[offset - 1], between.bias[offset - 1]
            for channel in range(output.shape[1]):
                first, second = output[:, channel, before], output[:, channel, behind]
                steps[:, channel, at] = weight[channel, 0] * first + weight[channel, 1] * second + bias[channel]
    return steps


@pytest.mark.parametrize("seed", range(40))
def test_every_option_is_the_sub_sampled_convolution_with_the_cheap_maps(seed: int) -> None:
    case = drawn(seed)
    for step, part in case.layer.arguments.options:
        with torch.no_grad():
            got, expected = case.layer.compute(case.stream, step, part), by_hand(case, step, part)
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("seed", range(12))
def test_the_form_with_shared_weights_has_the_same_outputs_and_gradients(seed: int) -> None:
    case = drawn(seed)
    layer, double = case.layer.double(), case.stream.double().requires_grad_()
    for step, part in layer.arguments.options:
        reduced = layer.compute(double, step, part)
        shared = layer.sample_steps(layer.sample(layer.convolve(double, layer.arguments.width, 1), part), step)
        goal = torch.randn_like(reduced)
        wanted = [double, *layer.parameters()]
        gradients = [
            torch.autograd.grad((output * goal).sum(), wanted, allow_unused=True) for output in (reduced, shared)
        ]
        for one, other in zip(*gradients, strict=True):
            zeros = torch.zeros(())
            torch.testing.assert_close(zeros if one is None else one, zeros if other is None else other)


@pytest.mark.parametrize("seed", range(20))
def test_multiply_adds_are_those_that_are_counted_while_it_runs(seed: int) -> None:
    case = drawn(seed)
    costs = case.layer.option_macs(case.stream.shape)
    for option in case.layer.arguments.options:
        case.layer.arguments = case.layer.arguments.model_copy(update={"chosen": option})
        assert count_macs(case.layer, (case.stream[:1],)).total == costs[option]
        assert case.layer.macs(case.stream.shape) == 5 * costs[option]


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_of_mixed_decisions_equals_its_inputs_one_by_one(seed: int) -> None:
    case = drawn(seed, gate=True)
    with torch.no_grad(), choices_noted(case.layer) as noted:
        together = case.layer(case.stream)
        alone = torch.cat([case.layer(part[None]) for part in case.stream])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    first, *others = noted[""].decisions
    assert torch.equal(first, torch.cat(others))
    expected = [
        case.layer.compute(part[None], *choice) for part, choice in zip(case.stream, first.tolist(), strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_decisions_differ_between_inputs_in_the_cases_above() -> None:
    kinds = []
    for seed in range(12):
        case = drawn(seed, gate=True)
        kinds.append(len(case.layer.decide(case.stream).unique(dim=0)))
    assert max(kinds) > 1


def test_a_gate_costs_what_is_counted() -> None:
    case = drawn(3, gate=True, dims=1)
    with choices_noted(case.layer) as noted, torch.no_grad():
        case.layer(case.stream[:1])
    assert noted[""].costs(case.layer) == [count_macs(case.layer, (case.stream[:1],)).total]
    assert case.layer.gate is not None and case.layer.gate.macs > 0


def test_deciding_leaves_the_gate_as_it_was() -> None:
    case = drawn(3, gate=True, dims=1)
    gate = case.layer.gate
    assert gate is not None
    before = {name: value.clone() for name, value in gate.state_dict().items()}
    gate.train()
    case.layer.decide(case.stream)
    assert gate.training and all(torch.equal(before[name], value) for name, value in gate.state_dict().items())


GOOD = {"steps": (1, 2), "channels": (4, 2), "order": (3, 1, 0, 2), "inputs": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": (0, 0, 1, 2)}, "each of the 4 output channels once"),
        ({"order": (0, 1, 2, 4)}, "each of the 4 output channels once"),
        ({"channels": (5, 2)}, "from 4 at the most"),
        ({"channels": (2, 4)}, "must fall"),
        ({"steps": (2, 1)}, "must rise"),
        ({"steps": (1, 0)}, "greater than or equal to 1"),
        ({"steps": (1, 10**9)}, "less than or equal to 64"),
        ({"chosen": (2, 0)}, "none of the 2 x 2 options"),
        ({"groups": 3}, "do not divide"),
        ({"groups": 2, "channels": (4, 3)}, "not equally many of each group"),
        ({"rebuilt_by": "depthwise"}, "need sources"),
        ({"rebuilt_by": "depthwise", "sources": ((), (0, 1))}, "must name a computed channel"),
        ({"sources": ((), (3, 1))}, "for depthwise maps alone"),
        ({"channels": (2,), "gate": {"hidden": 4}}, "all output channels"),
        ({"gate": {"hidden": 10**9}}, "less than or equal to 4096"),
        ({"code": "import os"}, "Extra inputs"),
    ],
)
def test_absurd_arguments_are_refused(changes: dict[str, object], words: str) -> None:
    DynamicConvArguments.model_validate(GOOD)
    with pytest.raises(ValidationError, match=words):
        DynamicConvArguments.model_validate({**GOOD, **changes})


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (nn.Linear(4, 4), "not a Linear"),
        (nn.ConvTranspose1d(2, 4, 3), "not a ConvTranspose1d"),
        (nn.Conv1d(2, 4, 3, padding=1, padding_mode="circular"), "circular"),
        (nn.Conv1d(2, 4, 2, padding="same"), "more zeros on one side"),
        (nn.Conv2d(2, 4, 3), "no time axis"),
    ],
)
def test_only_plain_convolutions_become_dynamic(block: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_stand_in(block, DynamicConvArguments.model_validate(GOOD))
