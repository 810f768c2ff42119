"""Adds up means, variances and covariances of a layer's output in float64, batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

CONSTANT = 1e-12  # variance as a share of the squared mean below which a channel is constant but for rounding


class ChannelMoments:
    """Adds up the mean and the covariance of channels over rows.

    Batches are merged by their means (Chan et al., 1979), so that a mean far above the spread costs no digits.

    count: the number of rows.
    mean: [channels].
    """

    def __init__(self, num_channels: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(num_channels, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(num_channels, num_channels, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """Adds rows [places, channels]."""
        if len(rows) == 0:
            return
        rows, before, total = rows.double(), self.count, self.count + len(rows)
        mean = rows.mean(0)
        centred, moved = rows - mean, mean - self.mean
        self._scatter.addmm_(centred.T, centred).addr_(moved, moved, alpha=before * len(rows) / total)
        self.mean += moved * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Returns the covariance [channels, channels]; rows and columns of constant channels are zeros."""
        varying = self.varying().double()
        return self._scatter / max(self.count, 1) * varying * varying[:, None]

    def varying(self) -> Tensor:
        """Returns which channels [channels] take more than one value, rounding aside."""
        return self._scatter.diagonal() / max(self.count, 1) > CONSTANT * self.mean.square()


class StepPairs:
    """Adds up what tells how alike neighbouring time steps are, for each channel.

    count: the number of pairs of neighbouring steps, of one channel.
    """

    def __init__(self, num_channels: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self._sums = torch.zeros(num_channels, 2, dtype=torch.float64, device=device)
        self._products = torch.zeros(num_channels, 2, 2, dtype=torch.float64, device=device)

    def add(self, series: Tensor) -> None:
        """Adds an output [batch, channels, steps, ...]."""
        first, second = series[:, :, :-1].double(), series[:, :, 1:].double()
        rows = torch.stack([first, second], dim=-1).movedim(1, 0).flatten(1, -2)  # [channels, places, 2]
        self.count += rows.shape[1]
        self._sums += rows.sum(1)
        self._products += rows.mT @ rows

    def correlation(self) -> float | None:
        """Returns Pearson's correlation of a step and the next, the mean over channels that vary; None without any."""
        covariance, varying = self._covariance()
        if not bool(varying.any()):
            return None
        spread = (covariance[:, 0, 0] * covariance[:, 1, 1]).sqrt()
        return float((covariance[:, 0, 1] / spread)[varying].mean().clamp(-1.0, 1.0))

    def relative_rmse(self) -> float | None:
        """Returns sqrt(sum over channels of E[(next - step)^2] / sum of Var[step]) of channels that vary, or None."""
        covariance, varying = self._covariance()
        if not bool(varying.any()):
            return None
        products = self._products[varying] / self.count
        change = (products[:, 0, 0] + products[:, 1, 1] - 2 * products[:, 0, 1]).clamp(min=0.0)
        variance = covariance[varying].diagonal(dim1=1, dim2=2).mean(1)
        return float((change.sum() / variance.sum()).sqrt())

    def _covariance(self) -> tuple[Tensor, Tensor]:
        """Returns the covariance [channels, 2, 2] of both steps, and which channels vary at both."""
        mean = self._sums / max(self.count, 1)
        covariance = self._products / max(self.count, 1) - mean[:, :, None] * mean[:, None, :]
        variance = covariance.diagonal(dim1=1, dim2=2)
        return covariance, (variance > CONSTANT * mean.square()).all(1) & (variance > 0).all(1)
