"""What random nets are put together from: drawn sizes, norms, activations, convolutions in one or two dimensions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Drawn = TypeVar("Drawn")

NORMS = ("batch", "group", "layer", "rms", "hand-written rms", "instance", "none")


class Draw(random.Random):
    """Choices that follow a seed."""

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, values: Sequence[Drawn]) -> Drawn:
        return values[int(self.random() * len(values))]


class HandRMS(nn.Module):
    """A norm as Llama has it: weight * x / root mean square of the last dimension."""

    element = "hand-written rms norm"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class ChannelsLast(nn.Module):
    """A module that works on the last dimension, for a map [B, C, ...]."""

    element = "channels last"

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


def groups_of(draw: Draw, width: int) -> int:
    """A number that divides the width, more than one and less than all where there is such a number."""
    return draw.pick([count for count in range(2, width) if width % count == 0] or [1])


def norm_of_tokens(draw: Draw, width: int, kind: str) -> nn.Module:
    if kind == "layer":
        return nn.LayerNorm(width, elementwise_affine=draw.chance(0.8))
    return {"rms": nn.RMSNorm, "hand-written rms": HandRMS}.get(kind, lambda _: nn.Identity())(width)


def activation(draw: Draw) -> nn.Module:
    kinds: tuple[Callable[[], nn.Module], ...] = (
        nn.ReLU,
        lambda: nn.ReLU(inplace=True),
        nn.GELU,
        nn.SiLU,
        nn.Sigmoid,
        nn.Hardswish,
        lambda: nn.LeakyReLU(0.1),
    )
    return draw.pick(kinds)()


def named_activation(draw: Draw) -> Callable[[Tensor], Tensor]:
    return draw.pick((F.relu, F.gelu, F.silu, torch.tanh, torch.sigmoid))


class Space:
    """Layers for maps [B, C, length] or [B, C, height, width]. norm: the kind of norm that the whole net has."""

    def __init__(self, draw: Draw, dims: int) -> None:
        self.draw, self.dims, self.norms = draw, dims, draw.pick(NORMS)
        self.name = f"{dims}-D convolutions"

    def conv(self, wide: int, narrow: int, size: int = 3, **more: Any) -> nn.Module:
        kind = nn.Conv1d if self.dims == 1 else nn.Conv2d
        more = {"padding": size // 2, "bias": self.draw.chance(0.5), **more}
        return kind(wide, narrow, size, **more)

    def up(self, wide: int, narrow: int) -> nn.Module:
        return (nn.ConvTranspose1d if self.dims == 1 else nn.ConvTranspose2d)(wide, narrow, 2, stride=2)

    def norm(self, width: int) -> nn.Module:
        kind = self.norms if self.draw.chance(0.8) else self.draw.pick(NORMS)
        if kind == "batch":
            return (nn.BatchNorm1d if self.dims == 1 else nn.BatchNorm2d)(width, affine=self.draw.chance(0.8))
        if kind == "instance":
            return (nn.InstanceNorm1d if self.dims == 1 else nn.InstanceNorm2d)(width, affine=self.draw.chance(0.5))
        if kind == "group":
            groups = self.draw.pick((1, groups_of(self.draw, width)))
            return nn.GroupNorm(groups, width, affine=self.draw.chance(0.8))
        return nn.Identity() if kind == "none" else ChannelsLast(norm_of_tokens(self.draw, width, kind))

    def unit(self, wide: int, narrow: int, size: int = 3, **more: Any) -> nn.Sequential:
        """Convolution, norm, activation."""
        return nn.Sequential(self.conv(wide, narrow, size, **more), self.norm(narrow), activation(self.draw))

    def smaller(self, x: Tensor) -> Tensor:
        return F.max_pool1d(x, 2) if self.dims == 1 else F.max_pool2d(x, 2)

    def average(self, x: Tensor) -> Tensor:
        return x.mean(-1) if self.dims == 1 else x.mean((2, 3))


def filled(net: nn.Module, seed: int) -> nn.Module:
    """In float64 and eval mode, every number drawn: no two weights are equal, and statistics are not the fresh ones."""
    net.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, part in [*net.named_parameters(), *net.named_buffers()]:
            if not part.is_floating_point():
                continue
            drawn = torch.rand(part.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var") or (part.ndim == 1 and name.endswith("weight")):
                part.copy_(0.5 + drawn)
            else:
                fan_in = part[0].numel() if part.ndim > 1 else 4
                part.copy_((drawn - 0.5) * 3.4 / max(1, fan_in) ** 0.5)
    return net
