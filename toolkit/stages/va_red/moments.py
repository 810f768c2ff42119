"""Collects second moments of a convolution's outputs, and fits the maps that rebuild some of them from the others.

All fits are least squares with an intercept, in float64 and without damping: a map has far fewer weights than there are
positions. Sums over calibration data are all that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.repair.exact import least_squares


class OutputMoments:
    """Holds the sums of products of all output channels and a one: [C + 1, C + 1]."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def add(self, output: Tensor) -> None:
        """Adds every position of an output [B, C, ...]."""
        rows = _with_one(output.flatten(2).transpose(1, 2).flatten(0, 1).double())
        product = rows.T @ rows
        self.sums = product if self.sums is None else self.sums.add_(product)

    def covariance(self) -> Tensor:
        """Returns the covariance of the channels: [C, C]."""
        assert self.sums is not None
        count, mean = self.sums[-1, -1], self.sums[-1, :-1] / self.sums[-1, -1]
        return self.sums[:-1, :-1] / count - mean.outer(mean)

    def fit(self, computed: Sequence[int], rebuilt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns weight [rebuilt, computed] and bias of the map from all computed channels."""
        assert self.sums is not None
        inputs, outputs = [*computed, -1], list(rebuilt)
        solution = least_squares(self.sums[inputs][:, inputs], self.sums[inputs][:, outputs])
        return solution[:-1].T, solution[-1]

    def sources(self, computed: Sequence[int], rebuilt: Sequence[int]) -> list[int]:
        """Returns for each rebuilt channel the computed one that explains most of it."""
        covariance = self.covariance()
        energy = covariance.diagonal()[list(computed)].clamp(min=1e-30)
        explained = covariance[list(computed)][:, list(rebuilt)].square() / energy[:, None]
        return [computed[at] for at in explained.argmax(0).tolist()]

    def fit_single(self, sources: Sequence[int], rebuilt: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns weight [rebuilt] and bias of the map that makes each channel of one other."""
        pairs = [self.fit([source], [channel]) for source, channel in zip(sources, rebuilt, strict=True)]
        return torch.cat([weight.reshape(1) for weight, _ in pairs]), torch.cat([bias for _, bias in pairs])

    def error(self, weight: Tensor, bias: Tensor, computed: Sequence[int], rebuilt: Sequence[int]) -> float:
        """Returns the squared error of a map [rebuilt, computed] over the variance of all channels."""
        assert self.sums is not None
        variance = self.covariance().diagonal().sum().clamp(min=1e-30) * self.sums[-1, -1]
        inputs, outputs = [*computed, -1], list(rebuilt)
        solution = torch.cat([weight, bias[:, None]], 1).T
        gram, cross = self.sums[inputs][:, inputs], self.sums[inputs][:, outputs]
        left = self.sums.diagonal()[outputs].sum() + (solution * (gram @ solution - 2 * cross)).sum()
        return float((left / variance).clamp(min=0.0))


class StepMoments:
    """Holds, for each channel, the sums from which the steps between the computed ones are fitted.

    stride: the temporal stride R.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.gram: Tensor | float = 0.0  # [R - 1, C, 3, 3], of the step before, the step behind and a one
        self.cross: Tensor | float = 0.0  # [R - 1, C, 3], with the step that is rebuilt
        self.energy: Tensor | float = 0.0  # [R - 1, C], of the step that is rebuilt
        self.sums: Tensor | float = 0.0  # [3, C]: number, sum and sum of squares over all steps

    def add(self, computed: Tensor, goal: Tensor) -> None:
        """Adds a batch.

        computed: the computed steps [B, C, S, ...].
        goal: all steps [B, C, T, ...].
        """
        before = computed.double()
        behind = torch.cat([before[:, :, 1:], before[:, :, -1:]], 2)
        inputs = torch.stack([before, behind, torch.ones_like(before)], -1)
        grams, crosses, energies = [], [], []
        for offset in range(1, self.stride):
            wanted = goal[:, :, offset :: self.stride].double()
            known = inputs[:, :, : wanted.shape[2]].transpose(0, 1).flatten(1, -2)
            wanted = wanted.transpose(0, 1).flatten(1)
            grams.append(known.transpose(1, 2) @ known)
            crosses.append((known.transpose(1, 2) @ wanted[..., None])[..., 0])
            energies.append(wanted.square().sum(1))
        self.gram = self.gram + torch.stack(grams)
        self.cross = self.cross + torch.stack(crosses)
        self.energy = self.energy + torch.stack(energies)
        whole = goal.double().transpose(0, 1).flatten(1)
        self.sums = self.sums + torch.stack(
            [torch.full_like(whole[:, 0], whole.shape[1]), whole.sum(1), whole.square().sum(1)]
        )

    def fit(self) -> tuple[Tensor, Tensor]:
        """Returns weight [R - 1, C, 2] and bias [R - 1, C]."""
        assert isinstance(self.gram, Tensor) and isinstance(self.cross, Tensor)
        solution = least_squares(self.gram, self.cross[..., None])[..., 0]
        return solution[..., :2], solution[..., 2]

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Returns the squared error of a map over the variance of all steps.

        weight: [R - 1, C, 2].
        bias: [R - 1, C].
        """
        assert isinstance(self.gram, Tensor) and isinstance(self.energy, Tensor) and isinstance(self.sums, Tensor)
        solution = torch.cat([weight, bias[..., None]], -1)
        products = (self.gram @ solution[..., None])[..., 0]
        left = self.energy.sum() + (solution * (products - 2 * self.cross)).sum()
        number, total, squares = self.sums
        variance = (squares - total.square() / number).sum().clamp(min=1e-30)
        return float((left / variance).clamp(min=0.0))


def channel_order(covariance: Tensor, groups: int, *, by_explaining: bool) -> list[int]:
    """Returns all channels in the order in which they are computed.

    The next channel is the one whose addition lowers the squared error of a linear map to all channels most (greedy
    least-squares choice). Every group gets its next channel before any group gets one more.

    covariance: [C, C].
    by_explaining: whether to choose so; else the channels of each group stay in their order, as in the paper.
    """
    width = len(covariance)
    in_each = width // groups
    if not by_explaining:
        return [group * in_each + at for at in range(in_each) for group in range(groups)]
    left, order = covariance.clone(), list[int]()
    start, free = left.diagonal().clone(), torch.ones(width, dtype=torch.bool)
    in_turn = torch.ones(width, dtype=torch.bool)
    while len(order) < width:
        energy = left.diagonal()
        alive = energy > 1e-9 * start.clamp(min=1e-30)
        gain = torch.where(alive, left.square().sum(0) / energy.clamp(min=1e-300), 0.0)
        best = int(torch.where(free & in_turn, gain, -1.0).argmax())
        order.append(best)
        free[best] = False
        if in_each > 1 and groups > 1:
            first = best // in_each * in_each
            in_turn[first : first + in_each] = False
            if not in_turn.any():
                in_turn[:] = True
        if alive[best]:
            left = left - left[:, best, None] * left[best] / energy[best]
    return order


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
