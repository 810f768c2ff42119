"""A small transformer of a user's own, and a hand-made compression of it; imported by a new process too."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks

DIM, HEADS, HIDDEN = 8, 4, 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.num_heads, self.shape = HEADS, (HEADS, DIM // HEADS)
        self.scale = (DIM // HEADS) ** -0.5
        self.q, self.k, self.v = (nn.Linear(DIM, DIM) for _ in range(3))
        self.proj = nn.Linear(DIM, DIM)
        self.fc1, self.fc2 = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, x: Tensor) -> Tensor:
        parts = (layer(self.norm(x)) for layer in (self.q, self.k, self.v))
        q, k, v = (part.unflatten(-1, self.shape).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(x)))


class Net(nn.Module):
    """Token ids and a signal in; a dictionary out. The output layer shares the embedding's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.embed = nn.Embedding(5, DIM)
        self.bn = nn.BatchNorm1d(3)
        self.stem = nn.Conv1d(3, DIM, 3, padding=1)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.out = nn.Linear(DIM, 5, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, signal: Tensor, ids: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        x = self.stem(self.bn(signal)).mT + self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return {"scores": self.out(x), "state": x}


def example_inputs() -> tuple[Tensor, ...]:
    return torch.linspace(-2, 3, 21).reshape(1, 3, 7), torch.arange(7)[None] % 5


def compressed() -> Net:
    """Two of four blocks, and in one block half the hidden units, in the other two of four heads."""
    torch.manual_seed(0)
    net = Net()
    net(*example_inputs())  # in training mode: batch norm gets statistics of its own
    net.eval()
    find_blocks(net, example_inputs())
    drop_block(net, "blocks.1")
    drop_block(net, "blocks.3")
    shrink(net.blocks[0].fc1, outputs=HIDDEN // 2)
    shrink(net.blocks[0].fc2, inputs=HIDDEN // 2)
    for layer in (net.blocks[2].q, net.blocks[2].k, net.blocks[2].v):
        shrink(layer, outputs=DIM // 2)
    shrink(net.blocks[2].proj, inputs=DIM // 2)
    net.blocks[2].num_heads, net.blocks[2].shape = 2, (2, 2)
    net.blocks[2].scale = 0.8
    return net


def shrink(layer: nn.Linear, inputs: int | None = None, outputs: int | None = None) -> None:
    layer.in_features, layer.out_features = inputs or layer.in_features, outputs or layer.out_features
    layer.weight = nn.Parameter(layer.weight.detach()[: layer.out_features, : layer.in_features].clone())
    layer.bias = nn.Parameter(layer.bias.detach()[: layer.out_features].clone())
