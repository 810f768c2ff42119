"""Ratios of multiply-adds that narrower networks of the same kind have are reached: each is built and counted."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_task import CHANNELS, CLASSES, DIM, TinyTask
from toolkit.measure.macs import count_macs
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.context import StageContext

TOLERANCE = 0.004

Widths = Sequence[int]


class Framed(nn.Module):
    """Puts blocks between an embedding and a head: [B, T, CHANNELS] -> [B, T, CLASSES]."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(CHANNELS, DIM), nn.Sequential(*blocks), nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)))


class Inverted(nn.Module):
    """x + narrow(depthwise(wide(x))) on maps, as in MobileNet and EfficientNet; a kernel makes some far costlier."""

    def __init__(self, hidden: int, kernel: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(DIM, hidden, 1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU6(),
            nn.Conv1d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU6(),
            nn.Conv1d(hidden, DIM, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x.mT).mT


class Attention(nn.Module):
    """x + attention(x) with heads of four channels."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.out = nn.Linear(DIM, 12 * heads), nn.Linear(4 * heads, DIM)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).transpose(1, 3).unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return x + self.out(mixed.transpose(1, 2).flatten(2))


class Hidden(nn.Module):
    """x + an MLP of x."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(DIM, hidden), nn.Linear(hidden, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Branches(nn.Module):
    """x + one layer that reads two branches side by side, as in Inception."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.near, self.far = nn.Conv1d(DIM, narrow, 1), nn.Conv1d(DIM, wide, 9, padding=4)
        self.join = nn.Conv1d(narrow + wide, DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([self.near(x.mT), self.far(x.mT)], 1)
        return x + self.join(torch.relu(both)).mT


class Grouped(nn.Module):
    """x + a convolution in groups of eight channels between pointwise ones, as in ResNeXt: whole groups go."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.a, self.c = nn.Conv1d(DIM, hidden, 1), nn.Conv1d(hidden, DIM, 1)
        self.b = nn.Conv1d(hidden, hidden, 3, padding=1, groups=hidden // 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.c(torch.relu(self.b(torch.relu(self.a(x.mT))))).mT


@dataclass(frozen=True)
class Family:
    """build: makes the network of these widths; `whole`: the unmodified widths; `step`: what each is a multiple of."""

    build: Callable[[Widths], nn.Module]
    whole: tuple[int, ...]
    step: tuple[int, ...]
    round_to: int

    def some(self, seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        counts = [width // step for width, step in zip(self.whole, self.step, strict=True)]
        drawn = [int(torch.randint(max(1, count // 2), count + 1, (), generator=generator)) for count in counts]
        return [count * step for count, step in zip(drawn, self.step, strict=True)]


FAMILIES = {
    "inverted residuals": Family(
        lambda widths: Framed([Inverted(*pair) for pair in zip(widths, (31, 3, 3), strict=True)]),
        (48, 24, 32), (8, 8, 8), 8,
    ),
    "heads and MLPs": Family(
        lambda w: Framed([Attention(w[0]), Hidden(w[1]), Attention(w[2]), Hidden(w[3])]),
        (4, 48, 3, 16), (1, 16, 1, 16), 16,
    ),
    "heads alone": Family(lambda widths: Framed([Attention(heads) for heads in widths]), (4, 3, 6), (1, 1, 1), 8),
    "branches side by side": Family(
        lambda w: Framed([Branches(w[0], w[1]), Branches(w[2], w[3])]), (16, 24, 32, 8), (8, 8, 8, 8), 8
    ),
    "grouped convolutions": Family(
        lambda widths: Framed([Grouped(hidden) for hidden in widths]), (32, 16, 48), (8, 8, 8), 8
    ),
}  # fmt: skip


class NetTask(TinyTask):
    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._weights = net.state_dict()

    def build_model(self) -> nn.Module:
        return copy.deepcopy(self.net)


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_narrower_network_has_is_reached(family: str, seed: int, tiny_context: StageContext) -> None:
    """Most of these ratios lie where one common keep ratio steps over them."""
    chosen = FAMILIES[family]
    torch.manual_seed(0)
    task = NetTask(chosen.build(chosen.whole).eval())
    dense = task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    asked = macs(chosen.build(chosen.some(seed)).eval()) / macs(dense)
    config = ChannelPrune(
        macs_ratio=asked, macs_tolerance=TOLERANCE, round_to=chosen.round_to, repair="none", allow_no_change=True
    )
    context = StageContext(dense, macs(dense), macs, torch.device("cpu"), 0, tiny_context.console)
    _, detail = apply_channel_prune(task.load_baseline(), task, config, context)
    assert math.isclose(detail.macs_ratio.achieved, asked, abs_tol=TOLERANCE)
