"""Small nets of one kind of residual block each, as they are in use; weights and statistics are not the fresh ones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 8


class Basic(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))): a ResNet's basic block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)
        self.conv2, self.bn2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Bottleneck(nn.Module):
    """One ReLU module, called three times and in place, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.conv = nn.Conv2d(WIDTH, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.expand, self.relu = nn.Conv2d(4, WIDTH, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.relu(self.conv(self.relu(self.reduce(x)))))
        y += x
        return self.relu(y)


class PreActivation(nn.Module):
    """x + conv(relu(bn(x)))."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(WIDTH), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(F.relu(self.bn(x)))


class Inverted(nn.Module):
    """x + bn(project(relu6(depthwise(expand(x))))): a MobileNet's block."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(WIDTH, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project, self.bn = nn.Conv2d(16, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn(self.project(F.relu6(self.depth(F.relu6(self.expand(x))))))


class Scaled(nn.Module):
    """x + scale * mlp(norm(depthwise(x))), the MLP on channels in the last dimension: a ConvNeXt's block."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH), nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc2(F.gelu(self.fc1(self.norm(self.depth(x).permute(0, 2, 3, 1)))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class Squeezed(Basic):
    """relu(x + gate * branch(x)): a block with squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, WIDTH), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(x + y * self.gate(y.mean((2, 3)))[:, :, None, None])


class Last(nn.Module):
    """x + mlp(norm(x)) with the channels last, [B, H, W, C] and any other: a Swin's MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class PreNorm(Last):
    """Attention and an MLP, each behind a norm; gives (stream, weights) back, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm0, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(self.norm0(x)).chunk(3, dim=-1)
        weights = (q @ k.mT / WIDTH**0.5).softmax(-1)
        return super().forward(x + self.out(weights @ v)), weights


class Video(nn.Module):
    """relu(x + conv(x)) of [B, C, T, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv(x))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "basic": Basic,
    "bottleneck": Bottleneck,
    "pre-activation": PreActivation,
    "inverted": Inverted,
    "convnext": Scaled,
    "squeeze-and-excitation": Squeezed,
    "transformer": PreNorm,
    "channels last": Last,
    "video": Video,
}

LAYERS = {"transformer": "linear", "channels last": "linear", "video": "conv3d"}  # of a bypass; else conv2d

POST_ACTIVATION = ("basic", "bottleneck", "squeeze-and-excitation", "video")


class BlockNet(nn.Module):
    """A stem, three blocks, a head on the mean over all positions: 3 numbers at each place -> [B, 5]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        convolution = nn.Conv3d if kind == "video" else nn.Conv2d
        self.stem = nn.Linear(3, WIDTH) if LAYERS.get(kind) == "linear" else convolution(3, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(KINDS[kind]() for _ in range(3))
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x) if self.kind in POST_ACTIVATION else x
        for block in self.blocks:
            x = block(x, mask=None)[0] if self.kind == "transformer" else block(x)
        dim = -1 if LAYERS.get(self.kind) == "linear" else 1
        return self.head(x.movedim(dim, -1).flatten(1, -2).mean(1))


def net_inputs(kind: str, seed: int, count: int = 4, size: int = 16) -> list[tuple[Tensor, ...]]:
    """`count` batches of `size` examples."""
    shapes = {"transformer": (9, 3), "channels last": (5, 6, 3), "video": (3, 3, 4, 5)}
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(size, *shapes.get(kind, (3, 7, 9)), generator=generator),) for _ in range(count)]


def block_net(kind: str) -> BlockNet:
    torch.manual_seed(5)
    net = BlockNet(kind)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.4, 1.2)
            nn.init.uniform_(module.bias, -0.4, 0.4)
    net.train()
    with torch.no_grad():
        for batch in net_inputs(kind, 9):
            net(*batch)
    return net.eval()
