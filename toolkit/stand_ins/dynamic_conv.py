"""Holds the stand-in `dynamic_conv`: a convolution that computes only some time steps and channels of its output.

After VA-RED^2 (Pan et al., ICLR 2021, arXiv 2102.07887): the temporal stride is multiplied by R and k of the C output
channels are computed; cheap linear maps rebuild the rest, first the channels and then the time steps. All options share
the weights: each computes a sub-sample of the one full output. With a gate every input takes an option of its own, and
the inputs of a batch that take the same one are computed together: nothing is computed and then masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from toolkit.base.errors import ExportError
from toolkit.hooks.modes import in_eval_mode
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.convolutions import CONVOLUTION_TYPES, CONVOLUTIONS, Conv, index_on, padding_of
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments
from toolkit.stand_ins.dynamic_maps import ChannelRebuild, StepRebuild
from toolkit.stand_ins.gate import Gate

Control = Callable[["DynamicConv", Tensor], Tensor]


@final
class DynamicConv(StandIn):
    """Computes a convolution in one of several options, which all give an output of the full shape.

    The weight holds the filters of the channels that some option computes, in ascending order of the channels. The
    maps `over_channels` and `over_steps` are those of the options, by the number of computed channels and by stride.
    """

    arguments: DynamicConvArguments
    replaces: ClassVar[Literal["block", "layer"]] = "layer"

    def __init__(
        self, block: nn.Module, arguments: DynamicConvArguments, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Takes stride, padding and dilation from a convolution, and no weights.

        Raises:
            ValueError: `block` is no plain convolution, or its padding cannot be kept with another stride.
        """
        super().__init__(block, arguments, device, dtype)
        if type(block) not in CONVOLUTION_TYPES:
            raise ValueError(f"a dynamic convolution can replace a convolution alone, not a {type(block).__name__}")
        assert isinstance(block, Conv)
        self.stride, self.dilation, self.padding = block.stride, block.dilation, padding_of(block)
        if len(self.stride) == 2 and arguments.steps != (1,):
            raise ValueError("a Conv2d has no time axis; its steps must be 1")
        widest = arguments.channels[0]
        shape = (widest, arguments.inputs, *block.weight.shape[2:])
        self.weight = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
        self.bias = None if block.bias is None else nn.Parameter(torch.zeros(widest, device=device, dtype=dtype))
        self.over_channels, self.over_steps = nn.ModuleDict(), nn.ModuleDict()
        self._groups: dict[int, int] = {}
        stored = arguments.computed(widest)
        for at, number in enumerate(arguments.channels):
            computed = arguments.computed(number)
            rows = None if number == widest else [stored.index(channel) for channel in computed]
            groups = arguments.groups_of(number)
            self._groups[number] = len(groups)
            for name, index in (("rows", rows), ("reads", _read_by(groups, arguments))):
                value = None if index is None else index_on(index, device)
                self.register_buffer(f"{name}_{number}", value, persistent=False)
            if number < arguments.width:
                sources = [computed.index(source) for source in arguments.sources[at]] if arguments.sources else None
                rebuild = ChannelRebuild(computed, arguments.rebuilt(number), sources, device, dtype)
                self.over_channels[str(number)] = rebuild
        for stride in arguments.steps:
            if stride > 1:
                self.over_steps[str(stride)] = StepRebuild(stride, arguments.width, device, dtype)
        numbers = (len(arguments.steps), len(arguments.channels))
        inputs = arguments.inputs * arguments.groups
        self.gate = None if arguments.gate is None else Gate(arguments.gate, inputs, numbers, device, dtype)
        self.control: Control | None = None

    @property
    def has_time(self) -> bool:
        """Returns whether the convolution has a time axis: the last of a Conv1d, the first in space of a Conv3d."""
        return len(self.stride) != 2

    def carry(self, stream: Tensor) -> Tensor:
        """Returns the output of the convolution, computed in the option that is chosen for each input."""
        if self.control is not None:
            return self.control(self, stream)
        if self.gate is None:
            return self.compute(stream, *self.arguments.chosen)
        return self.compute_each(stream, self.decide(stream))

    def decide(self, stream: Tensor) -> Tensor:
        """Returns the gate's choice for each input: int64 [B, 2], indices in `steps` and `channels`."""
        assert self.gate is not None
        with in_eval_mode(self.gate), torch.no_grad():  # its statistics are learnt only where it is trained
            steps, channels = self.gate(stream)
        return torch.stack([steps.argmax(1), channels.argmax(1)], 1)

    def compute_each(self, stream: Tensor, decisions: Tensor) -> Tensor:
        """Returns the output where input number i takes the option `decisions[i]`; equal ones are computed together.

        decisions: int64 [B, 2].
        """
        if len(stream) == 1:
            return self.compute(stream, *decisions[0].tolist())
        kinds, members = torch.unique(decisions, dim=0, return_inverse=True)
        if len(kinds) == 1:
            return self.compute(stream, *kinds[0].tolist())
        places = [(members == kind).nonzero()[:, 0] for kind in range(len(kinds))]
        parts = [
            self.compute(stream.index_select(0, place), *kind)
            for kind, place in zip(kinds.tolist(), places, strict=True)
        ]
        return torch.cat(parts).index_select(0, torch.cat(places).argsort())

    def compute(self, stream: Tensor, step: int, part: int) -> Tensor:
        """Returns the output [B, C, ...] with only some of it computed: option `step` of time, `part` of channels."""
        stride, number = self.arguments.steps[step], self.arguments.channels[part]
        output = self.convolve(stream, number, stride)
        if number < self.arguments.width:
            output = self.rebuild(number)(output)
        if stride > 1:
            output = self.between(stride)(output, self._length(stream))
        return output

    def rebuild(self, number: int) -> ChannelRebuild:
        """Returns the map that rebuilds the other channels where `number` of them are computed."""
        rebuild = self.over_channels[str(number)]
        assert isinstance(rebuild, ChannelRebuild)
        return rebuild

    def between(self, stride: int) -> StepRebuild:
        """Returns the map that rebuilds the steps between those that a stride computes."""
        between = self.over_steps[str(stride)]
        assert isinstance(between, StepRebuild)
        return between

    def convolve(self, stream: Tensor, number: int, stride: int) -> Tensor:
        """Returns the `number` computed channels, in ascending order, at every `stride`-th time step."""
        rows, reads = getattr(self, f"rows_{number}"), getattr(self, f"reads_{number}")
        weight = self.weight if rows is None else self.weight.index_select(0, rows)
        bias = self.bias if rows is None or self.bias is None else self.bias.index_select(0, rows)
        stream = stream if reads is None else stream.index_select(1, reads)
        strides = (self.stride[0] * stride, *self.stride[1:])
        run = CONVOLUTIONS[len(strides)]
        output: Tensor = run(stream, weight, bias, strides, self.padding, self.dilation, self._groups[number])
        return output

    def sample(self, full: Tensor, part: int) -> Tensor:
        """Returns what the option `part` of channels gives, from the full output [B, C, ...]."""
        number = self.arguments.channels[part]
        if number == self.arguments.width:
            return full
        computed = torch.tensor(self.arguments.computed(number), device=full.device)
        rebuilt: Tensor = self.rebuild(number)(full.index_select(1, computed))
        return rebuilt

    def sample_steps(self, full: Tensor, step: int) -> Tensor:
        """Returns what the option `step` of time gives, from an output with all time steps [B, C, T, ...]."""
        stride = self.arguments.steps[step]
        if stride == 1:
            return full
        rebuilt: Tensor = self.between(stride)(full[:, :, ::stride], full.shape[2])
        return rebuilt

    def _length(self, stream: Tensor) -> int:
        """Returns the number of time steps of the full output."""
        reach = self.dilation[0] * (self.weight.shape[2] - 1)
        return (stream.shape[2] + 2 * self.padding[0] - reach - 1) // self.stride[0] + 1

    def option_macs(self, shape: Sequence[int]) -> dict[tuple[int, int], int]:
        """Returns the multiply-adds of each option for one example, without the gate's.

        shape: the shape of the stream, batch included.
        """
        sizes = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                shape[2:], self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        ]
        space = math.prod(sizes[1:])
        costs = {}
        for step, part in self.arguments.options:
            stride, number = self.arguments.steps[step], self.arguments.channels[part]
            steps = math.ceil(sizes[0] / stride)
            per_position = number * math.prod(self.weight.shape[1:])
            if number < self.arguments.width:
                per_position += self.rebuild(number).macs
            between = self.between(stride).macs if stride > 1 else 0
            costs[step, part] = steps * space * (per_position + between)
        return costs

    def macs(self, shape: Sequence[int]) -> int:
        """Returns the multiply-adds of the chosen option for a stream of this shape, batch included, and the gate's."""
        gate = 0 if self.gate is None else self.gate.macs
        return int(shape[0]) * (self.option_macs(shape)[self.arguments.chosen] + gate)

    def plain_form(self) -> tuple[str, dict[str, Any]]:
        """Raises ExportError: options, maps and gate take more code than one readable file should hold."""
        raise ExportError(
            "it is a convolution that computes part of its output and rebuilds the rest (stage va_red), which takes "
            "hundreds of lines; write the model as one graph instead: --format onnx or torch_export"
        )

    def fault(self) -> str | None:
        """Returns which weights do not have the shape that the arguments state; None if all do."""
        arguments = self.arguments
        expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
            ("weight", self.weight, (arguments.channels[0], arguments.inputs, *self.weight.shape[2:])),
            ("bias", self.bias, (arguments.channels[0],)),
        ]
        for number in arguments.channels:
            if number < arguments.width:
                rebuild, rest = self.rebuild(number), arguments.width - number
                shape: tuple[int, ...] = (rest, number) if rebuild.sources is None else (rest,)
                expected.append((f"over_channels.{number}.weight", rebuild.weight, shape))
                expected.append((f"over_channels.{number}.bias", rebuild.bias, (rest,)))
        for stride in arguments.steps:
            if stride > 1:
                weight = self.between(stride).weight
                expected.append((f"over_steps.{stride}.weight", weight, (stride - 1, arguments.width, 2)))
        if self.gate is not None:
            inputs = arguments.inputs * arguments.groups * (1 if self.gate.pooling == "average" else 2)
            hidden = self.gate.hidden.weight
            expected.append(("gate.hidden.weight", hidden, (self.gate.scores.in_features, inputs)))
        for name, tensor, shape in expected:
            if tensor is not None and tuple(tensor.shape) != shape:
                return f"{name} must have shape {shape}, but it has {tuple(tensor.shape)}"
        return None


def _read_by(groups: Sequence[int], arguments: DynamicConvArguments) -> list[int] | None:
    """Returns the input channels that these groups of the convolution read; None if they read all of them."""
    if len(groups) == arguments.groups:
        return None
    return [group * arguments.inputs + at for group in groups for at in range(arguments.inputs)]
