"""Rebuilds the steps between every R-th time step from their computed neighbours, by a map in closed form.

The steps 0, R, 2R, ... are computed. A step n R + j between them, 0 < j < R, is rebuilt from the computed steps before
and behind it, by two weights and a bias of the offset j and the channel c, which all positions share:

    y[n R + j, c] = w_jc0 y[n R, c] + w_jc1 y[(n + 1) R, c] + b_jc.

Behind the last computed step, its own value stands for the missing one. VA-RED^2 (Pan et al., ICLR 2021, arXiv
2102.07887) rebuilds these steps by a cheap linear map, too; here the map is the least-squares solution. Dynamic
convolutions begin with this map (`toolkit.stand_ins.dynamic_maps`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.redundancy.channels import LIGHT, explained_share

TAPS = 2  # computed steps from which a step is rebuilt: the one before and the one behind it


@dataclass(frozen=True)
class TimeRebuild:
    """Holds the map that rebuilds the steps between every `rate`-th one.

    weights: [rate - 1, channels, 2] in float64, of the computed step before and of the one behind.
    bias: [rate - 1, channels] in float64.
    explained: R^2 on the data that were fitted.
    """

    rate: int
    weights: Tensor
    bias: Tensor
    explained: float

    def explained_elsewhere(self, moments: TimeMoments) -> float:
        """Returns the R^2 of this map on other data, which have the same rate; see `explained_share`."""
        return _explained(moments, self.weights, self.bias)


class TimeMoments:
    """Adds up what `time_rebuild` needs of outputs with a time axis, in float64.

    The columns are the computed step before, the computed step behind, and the step between them.

    rate: R; every R-th step is computed.
    count: [R - 1], the number of steps between at each offset, of one channel.
    gram: [R - 1, channels, 3, 3], the products of the columns, summed over steps and positions.
    sums: [R - 1, channels, 3], the columns, summed over steps and positions.
    """

    def __init__(self, rate: int, num_channels: int, device: torch.device | str = "cpu") -> None:
        """Starts with no rows.

        Raises:
            ValueError: `rate` is below 2, so that there are no steps between.
        """
        if rate < 2:
            raise ValueError(f"rate is {rate}; it must be at least 2")
        self.rate = rate
        self.count = torch.zeros(rate - 1, dtype=torch.float64, device=device)
        self.gram = torch.zeros(rate - 1, num_channels, TAPS + 1, TAPS + 1, dtype=torch.float64, device=device)
        self.sums = torch.zeros(rate - 1, num_channels, TAPS + 1, dtype=torch.float64, device=device)

    def add(self, output: Tensor, computed: Tensor | None = None) -> None:
        """Adds an output [batch, channels, steps, ...] with all its steps.

        computed: the computed steps [batch, channels, ceil(steps / rate), ...], if they are not those of the output but
            what a model computes that is to give this output.
        """
        output = output.detach().double()
        computed = output[:, :, :: self.rate] if computed is None else computed.detach().double()
        behind = torch.cat([computed[:, :, 1:], computed[:, :, -1:]], dim=2)
        for offset in range(1, self.rate):
            between = output[:, :, offset :: self.rate]
            num_between = between.shape[2]
            if num_between == 0:
                continue
            columns = torch.stack([computed[:, :, :num_between], behind[:, :, :num_between], between], dim=-1)
            rows = columns.movedim(1, 0).flatten(1, -2)  # [channels, places, columns]
            self.count[offset - 1] += rows.shape[1]
            self.gram[offset - 1] += rows.mT @ rows
            self.sums[offset - 1] += rows.sum(1)

    def means(self) -> Tensor:
        """Returns the means of the columns [R - 1, channels, 3]; 0 where there are no steps between."""
        return self.sums / self.count.clamp(min=1.0)[:, None, None]

    def within(self) -> Tensor:
        """Returns the products of the columns less their means: [R - 1, channels, 3, 3], summed as `gram` is."""
        return self.gram - self.sums[..., :, None] * self.means()[..., None, :]


def time_rebuild(moments: TimeMoments) -> TimeRebuild:
    """Returns the map with the least squared error; what nothing tells of is drawn to repetition, the weights 1 and 0.

    Its squared error on the data of the moments is at most that of repeating the computed step before: the best biases
    lower the error of every pair of weights. Where nothing varies, the map is repetition, plus the mean difference of
    each channel.
    """
    within, means = moments.within(), moments.means()
    inner, cross = within[..., :TAPS, :TAPS], within[..., :TAPS, TAPS]
    old = repetition(moments).weights
    ridge = (LIGHT.share * inner.diagonal(dim1=-2, dim2=-1)).clamp(min=1e-30)
    pull = cross - (inner @ old[..., None])[..., 0]
    weights = old + torch.linalg.solve(inner + torch.diag_embed(ridge), pull)
    bias = means[..., TAPS] - (means[..., :TAPS] * weights).sum(-1)
    return TimeRebuild(moments.rate, weights, bias, _explained(moments, weights, bias))


def repetition(moments: TimeMoments) -> TimeRebuild:
    """Returns the map that repeats the computed step before, without a fit."""
    weights = torch.zeros_like(moments.sums[..., :TAPS])
    weights[..., 0] = 1.0
    bias = torch.zeros_like(moments.sums[..., 0])
    return TimeRebuild(moments.rate, weights, bias, _explained(moments, weights, bias))


def _explained(moments: TimeMoments, weights: Tensor, bias: Tensor) -> float:
    """Returns the R^2 of a map, pooled over offsets and channels; the variance is about the mean of each channel."""
    within, means = moments.within(), moments.means()
    mix = torch.cat([-weights.to(within.device), within.new_ones(*weights.shape[:-1], 1)], -1)  # error: columns @ mix
    scatter = torch.einsum("jci,jcik,jck->j", mix, within, mix)
    offset = (means * mix).sum(-1) - bias.to(within.device)
    missed = moments.count * offset.square().sum(1)
    return explained_share((scatter + missed).sum(), within[..., TAPS, TAPS].sum())
