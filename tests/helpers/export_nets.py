"""Small models that exporters take, and some that they do not, or not for any batch size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification

from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks

WORDS, LENGTH = 50, 9


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu_(self.bn(self.conv(x)))


class ConvNet(nn.Module):
    """Images [B, 3, 8, 8] -> logits [B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.Sequential(Residual(), Residual(), Residual())
        self.head = nn.Linear(4, 5)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


def images(batch_size: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-2, 3, batch_size * 192).sin().reshape(batch_size, 3, 8, 8),)


def conv_net() -> ConvNet:
    """One of its three blocks is dropped; batch normalisation has statistics of its own."""
    torch.manual_seed(0)
    net = ConvNet()
    net(*images(16))
    net.eval()
    find_blocks(net, images(2))
    drop_block(net, "blocks.1")
    return net


def tiny_bert() -> BertForSequenceClassification:
    """One of its two blocks is dropped."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    net = BertForSequenceClassification(config).eval()
    find_blocks(net, sentences(2))
    drop_block(net, "bert.encoder.layer.1")
    return net


def sentences(batch_size: int) -> tuple[Tensor, ...]:
    """Token ids, and a mask that ends at another place in every row."""
    ids = (torch.arange(batch_size * LENGTH) * 7 % WORDS).reshape(batch_size, LENGTH)
    mask = (torch.arange(LENGTH) < 5 + torch.arange(batch_size)[:, None] % 4).long()
    return ids, mask


class Encoder(nn.Module):
    """nn.TransformerEncoder, which has a fast path in eval mode, then attention with a learned bias."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.parts = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.bias = nn.Parameter(torch.randn(2, 5, 5))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.encoder(tokens)
        q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in self.parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=(2 * self.bias).expand(x.shape[0], -1, -1, -1))
        return x + mixed.transpose(1, 2).reshape(x.shape)


def tokens(batch_size: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 2, batch_size * 40).cos().reshape(batch_size, 5, 8),)


def rows(batch_size: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 2, batch_size * 4).sin().reshape(batch_size, 4),)


class Linear(nn.Module):
    """Rows [B, 4] through one layer; subclasses do something odd with what comes out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)

    def forward(self, add: Tensor) -> object:
        return self.odd(self.layer(add))

    def odd(self, x: Tensor) -> object:
        return x


class FixedBatch(Linear):
    """Its code makes a Python number of the batch size, which is then a constant of the graph."""

    def odd(self, x: Tensor) -> object:
        return x * int(x.shape[0])


class Eigenvalues(Linear):
    """ONNX has no operator for them; torch.export does not mind."""

    def odd(self, x: Tensor) -> object:
        return torch.linalg.eigvalsh(x.mT @ x) + 0 * x


class Branching(Linear):
    """What it does depends on the values, which no graph can follow."""

    def odd(self, x: Tensor) -> object:
        return x if x.sum() > 0 else -x


class TwoFaced(Linear):
    """Computes something else while it is traced."""

    def odd(self, x: Tensor) -> object:
        return 1.01 * x if torch.compiler.is_exporting() else x


class Nested(Linear):
    """All kinds of nesting; names that a graph uses itself; the same tensor twice, the input, and a constant."""

    def odd(self, x: Tensor) -> object:
        y = torch.relu(x)
        return {"linear": y, "parts": (y, [y + 1, None]), "size": 3, "max-id": y.argmax(-1), "ones": torch.ones(3)}
