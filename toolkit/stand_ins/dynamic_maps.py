"""Holds the cheap linear maps of a dynamic convolution, which rebuild what it does not compute.

    channels:  y_j = sum_i W_ji y_i + b_j        pointwise: k (C - k) multiply-adds for each position
               y_j = w_j y_s(j) + b_j            depthwise: C - k for each position
    time:      y_t+i = a_i y_t + c_i y_t+R + b_i, i = 1 .. R - 1, for each channel; 2 for each rebuilt element

C: the output channels; k: those that are computed; s(j): the computed channel that channel j is rebuilt from.
R: the temporal stride. Behind the last computed step, that step stands for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from toolkit.stand_ins.convolutions import CONVOLUTIONS, index_on


class ChannelRebuild(nn.Module):
    """Rebuilds the output channels that were not computed from those that were; a new map gives 0.

    computed, rebuilt: the channels of both kinds, in ascending order.
    sources: for a depthwise map, the positions in `computed` that the rebuilt channels are made of; None for a
        pointwise one.
    """

    back: Tensor
    sources: Tensor | None

    def __init__(
        self,
        computed: Sequence[int],
        rebuilt: Sequence[int],
        sources: Sequence[int] | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        shape = (len(rebuilt), len(computed)) if sources is None else (len(rebuilt),)
        self.weight = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(len(rebuilt), device=device, dtype=dtype))
        place = {channel: at for at, channel in enumerate([*computed, *rebuilt])}
        self.register_buffer("back", index_on([place[channel] for channel in sorted(place)], device), persistent=False)
        self.register_buffer("sources", None if sources is None else index_on(sources, device), persistent=False)

    @property
    def macs(self) -> int:
        """Returns the multiply-adds for each position."""
        return self.weight.numel()

    def forward(self, computed: Tensor) -> Tensor:
        """Returns all channels [B, C, ...] of the computed ones [B, k, ...]."""
        dims = computed.dim() - 2
        if self.sources is None:
            kernel = self.weight.reshape(*self.weight.shape, *(1,) * dims)
            rebuilt = CONVOLUTIONS[dims](computed, kernel, self.bias)
        else:
            shape = (-1, *(1,) * dims)
            rebuilt = torch.addcmul(
                self.bias.reshape(shape), computed.index_select(1, self.sources), self.weight.reshape(shape)
            )
        return torch.cat([computed, rebuilt], 1).index_select(1, self.back)


class StepRebuild(nn.Module):
    """Rebuilds the time steps between those that were computed; a new map repeats the last computed step.

    The weight [R - 1, C, 2] holds what is taken of the step before and of the step behind; the bias is [R - 1, C].
    """

    def __init__(self, stride: int, channels: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.zeros(stride - 1, channels, 2, device=device, dtype=dtype)
        weight[..., 0] = 1.0
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(stride - 1, channels, device=device, dtype=dtype))

    @property
    def macs(self) -> int:
        """Returns the multiply-adds between two computed steps, for each position in space."""
        return self.weight.numel()

    def forward(self, computed: Tensor, length: int) -> Tensor:
        """Returns `length` time steps [B, C, length, ...] of the computed ones [B, C, S, ...]."""
        shape = (-1, *(1,) * (computed.dim() - 2))
        behind = torch.cat([computed[:, :, 1:], computed[:, :, -1:]], 2)
        steps = [computed]
        for weight, bias in zip(self.weight.unbind(), self.bias.unbind(), strict=True):
            before, after = weight[:, 0].reshape(shape), weight[:, 1].reshape(shape)
            steps.append(torch.addcmul(torch.addcmul(bias.reshape(shape), computed, before), behind, after))
        return torch.stack(steps, 3).flatten(2, 3)[:, :, :length]
