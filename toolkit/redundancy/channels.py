"""Chooses the channels that explain all channels best, and rebuilds the others from them, in closed form.

Everything here is a function of the mean and the covariance of a layer's channels. The idea that a cheap linear map can
rebuild a part of the channels from the rest is that of VA-RED^2 (Pan et al., ICLR 2021, arXiv 2102.07887), which keeps
the first channels of a layer; here the channels are chosen, and the map is the least-squares solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from toolkit.repair.damping import DAMPINGS, Damping, damped_solve

LIGHT: Final = Damping(1e-9, "own")  # keeps exact dependence exact; only makes the system solvable

ROUNDING = 1e-12  # share of a channel's variance below which what is left of it is rounding


@dataclass(frozen=True)
class FittedChannels:
    """Holds an affine map from the kept channels to the others: others = weights @ kept + bias.

    kept, others: indices of channels; `kept` in the order that was given, `others` ascending.
    weights: [others, kept] in float64.
    bias: [others] in float64.
    explained: R^2 on the data that were fitted; see `explained_share`.
    """

    kept: tuple[int, ...]
    others: tuple[int, ...]
    weights: Tensor
    bias: Tensor
    explained: float

    def explained_elsewhere(self, covariance: Tensor, mean: Tensor) -> float:
        """Returns the R^2 of this map on other data: 1 - E|others - weights @ kept - bias|^2 / E|others - E others|^2.

        It is negative where the map is worse than the mean of the other data.

        covariance, mean: [channels, channels] and [channels] of the other data.
        """
        covariance, mean = covariance.double(), mean.double()
        kept, others = _index(self.kept, covariance), _index(self.others, covariance)
        weights, bias = self.weights.to(covariance.device), self.bias.to(covariance.device)
        cross, inner = covariance[kept][:, others], covariance[kept][:, kept]
        total = covariance.diagonal()[others].sum()
        scatter = total - 2 * (weights.T * cross).sum() + (weights.T * (inner @ weights.T)).sum()
        offset = mean[others] - weights @ mean[kept] - bias
        return explained_share(scatter + offset.square().sum(), total)


def channel_choice(covariance: Tensor, num_kept: int, groups: int = 1) -> tuple[int, ...]:
    """Returns `num_kept` channels from which the others can be rebuilt best, in the order in which they are chosen.

    Each step takes the channel j that lowers the residual variance of all channels most, which is by

        sum over channels i of S_ij^2 / S_jj,

    where S is the covariance that the channels chosen before leave unexplained (the Schur complement). Ties go to the
    lower index, and once nothing is left to explain the channels follow in ascending order. The choice of fewer
    channels is the beginning of the choice of more. It takes O(num_kept * channels^2) operations.

    covariance: [channels, channels].
    groups: the number of groups of neighbouring channels, each of which gets a channel before any gets one more.

    Raises:
        ValueError: `num_kept` is below 0 or above the number of channels.
    """
    num_channels = len(covariance)
    if not 0 <= num_kept <= num_channels:
        raise ValueError(f"num_kept is {num_kept}; it must be from 0 to the number of channels, {num_channels}")
    left = covariance.detach().to(torch.float64, copy=True)
    least = ROUNDING * left.diagonal().clone()
    taken = torch.zeros(groups, num_channels // groups, dtype=torch.bool, device=left.device)
    chosen: list[int] = []
    while len(chosen) < num_kept:
        numbers = taken.sum(1, keepdim=True)
        free = (~taken & (numbers == numbers.min())).flatten()
        variance = left.diagonal()
        alive = free & (variance > least) & (variance > 0)
        gain = torch.linalg.vector_norm(left, dim=0).square() / variance.where(alive, 1.0)
        best = int(gain.where(alive, -1.0).argmax()) if bool(alive.any()) else int(free.int().argmax())
        if alive[best]:
            column = left[:, best] / left[best, best].sqrt()
            left.addr_(column, column, alpha=-1.0)
        taken.view(-1)[best] = True
        chosen.append(best)
    return tuple(chosen)


def linear_rebuild(covariance: Tensor, mean: Tensor, kept: Sequence[int], damping: Damping = LIGHT) -> FittedChannels:
    """Returns the affine map from the kept channels to all others with the least squared error.

    With S for the covariance, K for the kept channels and O for the others, it is

        weights = S_OK (S_KK + ridge)^-1,    bias = mean_O - weights @ mean_K.

    Its squared error on the data of S is at most the variance of the others, whatever the damping: the map of zeros,
    whose bias is the mean, has that error. So it is at most that of filling in zeros, too. A channel without variance
    gets its mean, and is given no weight.

    covariance, mean: [channels, channels] and [channels].
    kept: distinct indices of channels; an empty one gives the means.
    damping: how strongly the weights are drawn to zero.
    """
    covariance, mean = covariance.detach().double(), mean.detach().double()
    others = tuple(sorted(set(range(len(mean))) - set(kept)))
    at_kept, at_others = _index(kept, covariance), _index(others, covariance)
    inner, cross = covariance[at_kept][:, at_kept], covariance[at_kept][:, at_others]
    weights = cross.new_zeros(len(others), len(kept))
    if kept and others:
        weights = damped_solve(inner, damping.ridge(inner.diagonal()), cross).T.contiguous()
    bias = mean[at_others] - weights @ mean[at_kept]
    total = covariance.diagonal()[at_others].sum()
    residual = total - 2 * (weights.T * cross).sum() + (weights.T * (inner @ weights.T)).sum()
    return FittedChannels(tuple(kept), others, weights, bias, explained_share(residual, total))


def best_sources(covariance: Tensor, kept: Sequence[int]) -> tuple[int, ...]:
    """Returns, for each other channel in ascending order, the kept channel that explains most of it alone."""
    covariance = covariance.detach().double()
    others = sorted(set(range(len(covariance))) - set(kept))
    energy = covariance.diagonal()[list(kept)]
    explained = covariance[list(kept)][:, others].square() / energy.where(energy > 0, 1.0)[:, None]
    return tuple(kept[place] for place in explained.argmax(0).tolist())


def single_rebuild(covariance: Tensor, mean: Tensor, kept: Sequence[int], sources: Sequence[int]) -> FittedChannels:
    """Returns the map with the least squared error that makes each other channel of one kept channel alone.

    covariance, mean, kept: as in `linear_rebuild`.
    sources: the kept channel that each other channel is made of, the others in ascending order.
    """
    covariance, mean = covariance.detach().double(), mean.detach().double()
    others = tuple(sorted(set(range(len(mean))) - set(kept)))
    at_sources, at_others = _index(sources, covariance), _index(others, covariance)
    energy = covariance.diagonal()[at_sources]
    slopes = covariance[at_sources, at_others] / energy.where(energy > 0, 1.0)
    weights = covariance.new_zeros(len(others), len(kept))
    places = [list(kept).index(source) for source in sources]
    weights[_index(range(len(others)), covariance), _index(places, covariance)] = slopes
    fitted = FittedChannels(tuple(kept), others, weights, mean[at_others] - slopes * mean[at_sources], 0.0)
    return replace(fitted, explained=fitted.explained_elsewhere(covariance, mean))


def damped_rebuild(
    covariance: Tensor, mean: Tensor, kept: Sequence[int], elsewhere: tuple[Tensor, Tensor]
) -> FittedChannels:
    """Returns the map of `linear_rebuild` with the damping, of LIGHT and DAMPINGS, that explains other data best.

    It is for data that are few for the number of channels, where the undamped map fits their noise.

    elsewhere: covariance and mean of the other data.
    """
    maps = [linear_rebuild(covariance, mean, kept, damping) for damping in (LIGHT, *DAMPINGS)]
    return max(maps, key=lambda one: one.explained_elsewhere(*elsewhere))


def explained_share(residual: Tensor, total: Tensor) -> float:
    """Returns R^2 = 1 - residual / total, pooled over channels; 1 where nothing varies, so that nothing is unexplained.

    residual, total: scalars, the squared error and the variance, both summed over channels.
    """
    return 1.0 - float(residual.clamp(min=0.0) / total) if float(total) > 0 else 1.0


def _index(channels: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(tuple(channels), dtype=torch.long, device=like.device)
