"""Holds the arguments of the stand-in `dynamic_conv` as plain data, which may come from an untrusted file."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Settings
from toolkit.stand_ins.contract import StandInArguments

Count = Annotated[int, Field(ge=1, le=2**16)]

Channel = Annotated[int, Field(ge=0, lt=2**16)]

Pooling = Literal["average", "average_and_change"]


class GateArguments(Settings):
    """Holds the arguments of a gate, which chooses an option for each input.

    hidden: the width of the gate's hidden layer.
    pooling: what the gate reads: `average`, the mean of each channel over all positions, as in VA-RED^2;
        `average_and_change` adds the mean absolute difference of neighbouring time steps.
    """

    hidden: Annotated[int, Field(ge=1, le=4096)]
    pooling: Pooling = "average"


class DynamicConvArguments(StandInArguments):
    """Holds the arguments of a dynamic convolution.

    steps: the temporal strides R that it offers: only every R-th time step is computed.
    channels: the numbers of output channels that it offers to compute, the largest first.
    order: all output channels; the first k are computed where k are.
    inputs: the input channels that each output channel reads.
    groups: the groups of the convolution when all channels are computed.
    rebuilt_by: the map that rebuilds the other channels: `pointwise`, from all computed channels, or `depthwise`, each
        channel from a single one.
    sources: for depthwise maps, for each entry of `channels`, the computed channel that each rebuilt channel is made
        of, in ascending order of the rebuilt channels; empty for pointwise maps.
    chosen: the indices in `steps` and `channels` of the option that is taken; with a gate, that which it takes most
        often.
    gate: the gate; None if every input takes the chosen option.
    """

    type: Literal["dynamic_conv"] = "dynamic_conv"
    steps: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(min_length=1, max_length=8)]
    channels: Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]
    order: Annotated[tuple[Channel, ...], Field(min_length=1)]
    inputs: Count
    groups: Count = 1
    rebuilt_by: Literal["pointwise", "depthwise"] = "pointwise"
    sources: tuple[tuple[Channel, ...], ...] = ()
    chosen: tuple[Annotated[int, Field(ge=0, lt=8)], Annotated[int, Field(ge=0, lt=8)]] = (0, 0)
    gate: GateArguments | None = None

    @model_validator(mode="after")
    def _options_fit(self) -> DynamicConvArguments:
        width = len(self.order)
        if sorted(self.order) != list(range(width)):
            raise ValueError(f"order must hold each of the {width} output channels once")
        if list(self.channels) != sorted(set(self.channels), reverse=True) or self.channels[0] > width:
            raise ValueError(f"channels {self.channels} must fall, from {width} at the most")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"steps {self.steps} must rise")
        if self.chosen[0] >= len(self.steps) or self.chosen[1] >= len(self.channels):
            raise ValueError(f"chosen {self.chosen} is none of the {len(self.steps)} x {len(self.channels)} options")
        if self.gate is not None and self.channels[0] != width:
            raise ValueError("with a gate, the first of channels must be all output channels")
        if width % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {width} output channels")
        for number in self.channels:
            if len(set(self._in_groups(number).values())) > 1:
                raise ValueError(f"the first {number} channels of order are not equally many of each group")
        return self

    @model_validator(mode="after")
    def _sources_fit(self) -> DynamicConvArguments:
        if self.rebuilt_by == "pointwise":
            if self.sources:
                raise ValueError("sources are for depthwise maps alone")
            return self
        if len(self.sources) != len(self.channels):
            raise ValueError("depthwise maps need sources for each entry of channels")
        for number, sources in zip(self.channels, self.sources, strict=True):
            if len(sources) != len(self.order) - number or not set(sources) <= set(self.order[:number]):
                raise ValueError(f"the sources for {number} channels must name a computed channel for each other one")
        return self

    @property
    def width(self) -> int:
        """Returns the number of output channels."""
        return len(self.order)

    @property
    def options(self) -> tuple[tuple[int, int], ...]:
        """Returns the pairs of indices in `steps` and `channels`, in order of rising index."""
        return tuple((step, part) for step in range(len(self.steps)) for part in range(len(self.channels)))

    def computed(self, number: int) -> list[int]:
        """Returns the channels that are computed where `number` of them are, in ascending order."""
        return sorted(self.order[:number])

    def groups_of(self, number: int) -> list[int]:
        """Returns the groups of the convolution that the first `number` channels lie in, in ascending order."""
        return sorted(self._in_groups(number))

    def _in_groups(self, number: int) -> Counter[int]:
        """Returns how many of the first `number` channels lie in each group."""
        in_each = self.width // self.groups
        return Counter(channel // in_each for channel in self.order[:number])

    def rebuilt(self, number: int) -> list[int]:
        """Returns the channels that are rebuilt where `number` are computed, in ascending order."""
        return sorted(self.order[number:])
