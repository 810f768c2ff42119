"""Adds up the statistics of convolutions' outputs over batches of inputs, at positions drawn with a fixed seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.channels.layers import output_weights
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.redundancy.moments import ChannelMoments, StepPairs
from toolkit.redundancy.time import TimeMoments

RATES: Final = (2, 4)

HAVE_TIME: Final = (1, 3)  # numbers of axes of convolutions whose first axis is taken for time: sequences and clips


@dataclass
class LayerStatistics:
    """Holds the statistics of one layer's output on one set of inputs.

    pairs, by_rate: None and empty for layers without a time axis, and until an output has two steps.
    steps: the numbers of steps of the outputs that were seen, as (least, most); None for layers without a time axis.
    fault: why the layer has no statistics; empty where it has.
    """

    channels: ChannelMoments
    pairs: StepPairs | None = None
    by_rate: dict[int, TimeMoments] = field(default_factory=dict)
    steps: tuple[int, int] | None = None
    fault: str = ""


def has_time(layer: nn.Module) -> bool:
    """Returns whether the first axis behind the channels of a convolution is taken for time."""
    return num_axes(layer) in HAVE_TIME


def num_axes(layer: nn.Module) -> int:
    """Returns the number of axes behind the channels of a convolution."""
    return output_weights(layer).ndim - 2


class Collector:
    """Collects the statistics of some layers while their model runs.

    positions: the most positions that are used of each example's output in a call; whole series are used along time,
        one at the least.
    found: the statistics by the name of the layer; a layer that never ran is missing.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], positions: int, seed: int) -> None:
        self.model, self.names, self.positions = model, names, positions
        self.found: dict[str, LayerStatistics] = {}
        self._generators = {name: torch.Generator().manual_seed(seed) for name in names}

    @torch.no_grad()
    def run(self, inputs: Iterable[Inputs]) -> dict[str, LayerStatistics]:
        """Runs the model in eval mode on all inputs, and returns `found`."""
        points = [ActivationPoint(name, "output") for name in self.names]
        with evaluating(self.model), watched(self.model, points, self._note):
            for parts in inputs:
                self.model(*parts)
        return self.found

    def _note(self, point: ActivationPoint, output: Tensor) -> None:
        layer, generator = self.model.get_submodule(point.module), self._generators[point.module]
        if output.ndim == num_axes(layer) + 1:  # an example without a batch
            output = output[None]
        num_channels = output.shape[1]
        statistics = self.found.get(point.module)
        if statistics is None:
            statistics = self.found[point.module] = LayerStatistics(ChannelMoments(num_channels, output.device))
        if len(statistics.channels.mean) != num_channels:
            statistics.fault = "its number of channels changes from call to call"
        rows = _drawn(output.flatten(2), self.positions, generator).movedim(1, -1).flatten(0, 1)
        if not bool(rows.isfinite().all()):
            statistics.fault = "its output holds numbers that are not finite"
        if statistics.fault:
            return
        statistics.channels.add(rows)
        if has_time(layer):
            steps = output.shape[2]
            num_series = max(1, self.positions // max(steps, 1))
            _add_series(statistics, _drawn(output.flatten(3), num_series, generator) if output.ndim > 3 else output)


def _add_series(statistics: LayerStatistics, series: Tensor) -> None:
    """Adds whole series [batch, channels, steps, ...]."""
    steps = series.shape[2]
    least, most = statistics.steps or (steps, steps)
    statistics.steps = min(least, steps), max(most, steps)
    if not bool(series.isfinite().all()):
        statistics.fault = "its output holds numbers that are not finite"
    if steps < 2 or statistics.fault:
        return
    num_channels, device = series.shape[1], series.device
    if statistics.pairs is None:
        statistics.pairs = StepPairs(num_channels, device)
        statistics.by_rate = {rate: TimeMoments(rate, num_channels, device) for rate in RATES}
    statistics.pairs.add(series)
    for moments in statistics.by_rate.values():
        moments.add(series)


def _drawn(values: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Returns at most `most` of the last axis, drawn without replacement."""
    total = values.shape[-1]
    if total <= most:
        return values
    return values[..., torch.randperm(total, generator=generator)[:most].to(values.device)]


def in_groups(layers: dict[str, int], memory_bytes: int) -> list[list[str]]:
    """Returns the names of layers in groups whose covariances of two sets of inputs fit into a memory together.

    A layer that does not fit on its own is a group of its own.

    layers: the number of output channels by name.
    """
    groups: list[list[str]] = []
    room = -math.inf
    for name, num_channels in layers.items():
        size = 2 * 8 * num_channels**2  # float64, two sets
        if size > room:
            groups.append([])
            room = memory_bytes
        groups[-1].append(name)
        room -= size
    return groups
