"""Depth repair where a fixed scale, another layout or stochastic depth stands between the last layer and the sum."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.fit import Fitted, fit_layers, install
from toolkit.repair.folded import LEAST_SCALE
from toolkit.repair.site import Site
from toolkit.repair.sites import depth_site

WIDTH, HIDDEN, SIDE = 8, 24, 5

Data = list[tuple[Tensor, ...]]


class Branch(nn.Module):
    """A norm and an MLP over the last dimension, and a scale per channel that trained nets could have."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.gamma = nn.Parameter(torch.empty(WIDTH).uniform_(0.1, 1.5))

    def mlp(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(WIDTH).uniform_(-1.5, 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: whole examples skip the branch while training."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(len(x), 1, 1, 1) > 0.5) if self.training else x


class LayerScaled(Branch):
    """As DeiT-III and DINOv2: the scale is a module, stochastic depth follows."""

    def __init__(self) -> None:
        super().__init__()
        self.ls, self.drop = Scale(), DropPath()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.ls(self.mlp(x)))


class Parameter(Branch):
    """As CaiT and BEiT: the scale is a parameter of the block."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.mlp(x)


class Permuted(Branch):
    """As ConvNeXt: channels come last in the branch, and second in the stream."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.gamma.view(-1, 1, 1)


class Flattened(Branch):
    """As Swin: the branch sees tokens, the stream is a map."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x.flatten(1, 2)).view(x.shape)


class ScaledConvolution(Branch):
    """The last layer is a convolution whose output is scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.expand = nn.Conv2d(HIDDEN, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.gelu(self.expand(x))) * self.gamma.view(-1, 1, 1)


class Dead(Branch):
    """Some channels of the branch are switched off, one of them all but."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma.data[:3] = torch.tensor([0.0, 0.0, 0.1 * LEAST_SCALE])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.mlp(x)


class Gated(Branch):
    """Squeeze-and-excitation at the end of the branch: what it multiplies by depends on the example."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.gate(x.mean((1, 2), keepdim=True))) * self.mlp(x)


class NormedAtTheEnd(Branch):
    """As Swin v2: a LayerNorm stands between the last layer and the addition."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.mlp(x))


KINDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "layer scale": (LayerScaled, "same"),
    "parameter": (Parameter, "same"),
    "permuted": (Permuted, "channels_first"),
    "flattened": (Flattened, "reshaped"),
    "convolution": (ScaledConvolution, "same"),
    "dead channels": (Dead, "same"),
}


def net_of(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(*(kind() for _ in range(3))).eval()


def data_of(kind: Callable[[], nn.Module], seed: int, examples: int = 32) -> Data:
    """Channels come second where there are convolutions."""
    generator = torch.Generator().manual_seed(seed)
    is_map = kind in (Permuted, ScaledConvolution)
    shape = (examples, WIDTH, SIDE, SIDE) if is_map else (examples, SIDE, SIDE, WIDTH)
    return [(torch.randn(shape, generator=generator),) for _ in range(3)]


def doubled(batches: Data) -> Data:
    return [tuple(part.double() for part in inputs) for inputs in batches]


def site_of(kind: Callable[[], nn.Module], net: nn.Module, block: str) -> Site | None:
    inputs = data_of(kind, 0, 1)[0]
    return depth_site(net, block, inputs, execution_order(net, inputs))


def error_without(net: nn.Module, block: str, batches: Data, fitted: Fitted | None) -> float:
    """Relative squared error of the stream behind `block` when the block is gone, as the definition says."""
    short = copy.deepcopy(net)
    find_blocks(short, batches[0])
    if fitted is not None:
        install(short, fitted)
    drop_block(short, block)
    after, error, scale = ActivationPoint(block, "output"), 0.0, 0.0
    for inputs in batches:
        wanted, found = capture(net, inputs, {after})[after], capture(short, inputs, {after})[after]
        error += float((found - wanted).square().sum())
        scale += float(wanted.square().sum())
    return error / scale


@pytest.mark.parametrize("block", ["1", "2"])
@pytest.mark.parametrize("name", KINDS)
def test_a_fit_never_lifts_the_error_in_float64(name: str, block: str) -> None:
    kind, layout = KINDS[name]
    net = net_of(kind)
    site = site_of(kind, net, block)
    assert site is not None and site.joint.layout == layout
    net.double()
    calibration, held_out = doubled(data_of(kind, 1)), doubled(data_of(kind, 2))
    (fitted,) = fit_layers(net, net, [site], calibration, held_out)
    pairs = [(calibration, fitted.calibration_error), (held_out, fitted.holdout_error)]
    for batches, pair in pairs:
        assert pair is not None
        before, after = error_without(net, block, batches, None), error_without(net, block, batches, fitted)
        assert pair == (pytest.approx(before, rel=1e-3), pytest.approx(after, rel=1e-3))
        assert after < 0.95 * before


@pytest.mark.parametrize("name", ["layer scale", "parameter", "permuted", "dead channels"])
def test_the_scale_is_measured(name: str) -> None:
    kind, _ = KINDS[name]
    net = net_of(kind)
    site = site_of(kind, net, "1")
    assert site is not None
    true = net[0].ls.gamma if kind is LayerScaled else net[0].gamma
    assert site.joint.scale == pytest.approx(true.tolist(), rel=1e-3, abs=1e-5)


def test_channels_that_are_switched_off_keep_their_weights() -> None:
    net = net_of(Dead)
    site = site_of(Dead, net, "1")
    assert site is not None
    (fitted,) = fit_layers(net, net, [site], data_of(Dead, 1), data_of(Dead, 2))
    old = net.get_submodule(site.layer)
    torch.testing.assert_close(fitted.weight[:3], old.weight[:3])
    assert not torch.allclose(fitted.weight[3:], old.weight[3:], atol=1e-2)


@pytest.mark.parametrize("kind", [Gated, NormedAtTheEnd])
def test_what_is_no_fixed_scale_is_not_taken_for_one(kind: Callable[[], nn.Module]) -> None:
    assert site_of(kind, net_of(kind), "1") is None
