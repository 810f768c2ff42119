"""Random small nets by seed: maps, tokens and rows, one or two inputs, several kinds of outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.random_nets.map_blocks import WORKS, Residual
from tests.random_nets.map_joints import JOINTS, Pixels, Strided
from tests.random_nets.map_more import MORE_WORKS
from tests.random_nets.parts import Draw, Space, filled
from tests.random_nets.token_blocks import Attention, Mixer, OfTorch, Rows, TokenBlock, Twice
from tests.random_nets.token_more import MORE_BLOCKS, Merged

Inputs = tuple[Tensor, ...]

CLASSES = 5


@dataclass
class Answer:
    logits: Tensor
    more: Tensor


class Outputs(nn.Module):
    """Logits alone, or with others in a tuple, a dictionary, a dataclass, or nested."""

    def __init__(self, draw: Draw, width: int) -> None:
        super().__init__()
        self.way = draw.pick(("tensor", "tensor", "tuple", "dictionary", "dataclass", "nested"))
        self.element = f"outputs: {self.way}"
        self.logits = nn.Linear(width, CLASSES)
        self.more = nn.Linear(width, 2) if self.way != "tensor" else None

    def forward(self, x: Tensor) -> Any:
        logits = self.logits(x)
        if self.more is None:
            return logits
        more = self.more(x)
        named = {"tuple": (logits, more), "dictionary": {"logits": logits, "more": more}}
        return named.get(self.way) or (Answer(logits, more) if self.way == "dataclass" else {"all": [logits, (more,)]})


class OfMaps(nn.Module):
    """[B, 3, 8, 8] or [B, 3, 12], with a row [B, 4] beside it in some."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        space = Space(draw, draw.pick((1, 2, 2)))
        self.space, self.shape = space, (3, 12) if space.dims == 1 else (3, 8, 8)
        width = draw.pick((6, 8, 12))
        self.stem = space.unit(3, width)
        body: list[nn.Module] = []
        joints = [kind for kind in JOINTS if space.dims == 2 or kind is not Pixels]
        is_strided = False
        for _ in range(draw.pick((2, 3, 4))):
            if draw.chance(0.6):
                body.append(Residual(draw, draw.pick(WORKS + MORE_WORKS)(draw, space, width)))
                continue
            kind = draw.pick([kind for kind in joints if not (kind is Strided and is_strided)])
            is_strided |= kind is Strided
            joint = kind(draw, space, width)
            body += [joint]
            width = joint.out
        self.body = nn.Sequential(*body) if draw.chance(0.5) else nn.ModuleList(body)
        self.second = draw.pick((None, None, None, "scales and shifts", "beside", "same stem"))
        if self.second is not None:
            self.element = f"two inputs: {self.second}"
        self.cond = None
        if self.second == "scales and shifts":
            self.cond = nn.Linear(4, 2 * width)
        elif self.second == "beside":
            self.cond = nn.Linear(4, 6)
        self.flattens = self.second != "same stem" and draw.chance(0.3)
        places = torch.Size(self.shape[1:]).numel() // (2**space.dims if is_strided else 1)
        self.head = Head(draw, space, width * (places if self.flattens else 1), self.flattens)
        self.outputs = Outputs(draw, self.head.out + (6 if self.second == "beside" else 0))

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        if self.second == "same stem":
            return self.outputs(self.head(self._body(self.stem(x) + self.stem(more[0]))))
        x = self._body(self.stem(x))
        if self.second == "scales and shifts":
            scale, shift = self.cond(more[0]).reshape(len(x), -1, *([1] * self.space.dims)).chunk(2, 1)
            x = x * (1 + scale) + shift
        x = self.head(x)
        return self.outputs(torch.cat((x, self.cond(more[0])), -1) if self.second == "beside" else x)

    def _body(self, x: Tensor) -> Tensor:
        for part in self.body:
            x = part(x)
        return x

    def examples(self, batch: int, generator: torch.Generator) -> Inputs:
        shapes = [self.shape] + ([self.shape if self.second == "same stem" else (4,)] if self.second else [])
        return tuple(torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


class Head(nn.Module):
    """The mean over places, or all of them in a row; perhaps a layer more."""

    def __init__(self, draw: Draw, space: Space, width: int, flattens: bool) -> None:
        super().__init__()
        self.space, self.flattens = space, flattens
        self.element = "flattened map" if flattens else "mean over places"
        self.deep = flattens or draw.chance(0.4)
        self.out = 8 if self.deep else width
        self.layer = nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.1)) if self.deep else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.flatten(x, 1) if self.flattens else self.space.average(x))


class OfTokens(nn.Module):
    """Ids [B, 5], rows [B, 5, 3] or an image [B, 3, 4, 6] in patches, with other rows [B, 4, 3] in some."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        width = draw.pick((6, 8, 12))
        self.of = draw.pick(("ids", "rows", "patches"))
        self.element = f"tokens: {self.of}"
        length = 6 if self.of == "patches" else 5
        embeds = {"ids": lambda: nn.Embedding(11, width), "rows": lambda: nn.Linear(3, width)}
        self.embed = embeds.get(self.of, lambda: nn.Conv2d(3, width, 2, stride=2))()
        self.position = nn.Parameter(torch.zeros(1, length, width)) if draw.chance(0.6) else None
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if draw.chance(0.4) else None
        length += self.token is not None
        kinds = (TokenBlock, TokenBlock, TokenBlock, TokenBlock, Mixer, OfTorch, Twice, *MORE_BLOCKS)
        blocks = [draw.pick(kinds)(draw, width, length) for _ in range(draw.pick((1, 2, 3)))]
        if draw.chance(0.15):
            blocks += [Merged(draw, width), draw.pick(MORE_BLOCKS)(draw, width, length // 2)]
        self.blocks = nn.ModuleList(blocks)
        self.second = draw.pick((None, None, None, "attention", "same layers"))
        if self.second is not None:
            self.element = f"two inputs: {self.second}"
        self.cross = Attention(draw, width, crosses=True) if self.second == "attention" else None
        self.side = nn.Linear(3, width) if self.second == "attention" else None
        self.norm = draw.pick((nn.LayerNorm, nn.RMSNorm, lambda _: nn.Identity()))(width)
        self.norm = self.norm if self.second != "same layers" else nn.Identity()
        self.ending = draw.pick(("mean", "first", "all"))
        self.outputs = Outputs(draw, 2 * width if self.second == "same layers" else width)
        if self.of == "ids" and self.second is None and draw.chance(0.4):
            self.outputs.logits = nn.Linear(width, 11, bias=False)
            self.outputs.logits.weight = self.embed.weight
            self.outputs.element = "logits by the embedding's own weights"

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        y = self._stream(x)
        if self.cross is not None:
            y = y + self.cross(y, self.side(more[0]))
        if self.second == "same layers":
            y = torch.cat((y, self._stream(more[0])), -1)
            return self.outputs(self._ended(y))
        return self.outputs(self._ended(self.norm(y)))

    def _stream(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT if self.of == "patches" else self.embed(x)
        if self.position is not None:
            x = x + self.position
        if self.token is not None:
            x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        for block in self.blocks:
            x = block(x)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def _ended(self, x: Tensor) -> Tensor:
        return {"mean": lambda: x.mean(1), "first": lambda: x[:, 0], "all": lambda: x}[self.ending]()

    def examples(self, batch: int, generator: torch.Generator) -> Inputs:
        def rows(length: int) -> Tensor:
            return torch.randn(batch, length, 3, generator=generator, dtype=torch.float64)

        def first() -> Tensor:
            if self.of == "patches":
                return torch.randn(batch, 3, 4, 6, generator=generator, dtype=torch.float64)
            return torch.randint(11, (batch, 5), generator=generator) if self.of == "ids" else rows(5)

        return (first(), *({"attention": [rows(4)], "same layers": [first()]}.get(str(self.second), [])))


class OfRows(nn.Module):
    """Rows [B, 4], two of them in some: [B, 5] at the end."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        width = draw.pick((6, 8, 12))
        self.second = draw.pick((None, "sum", "product", "beside", "same tower"))
        if self.second is not None:
            self.element = f"two inputs: {self.second}"
        self.first = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.other = None if self.second in (None, "same tower") else nn.Linear(4, width)
        self.blocks = nn.Sequential(*(Rows(draw, width) for _ in range(draw.pick((1, 2, 3)))))
        self.outputs = Outputs(draw, 2 * width if self.second in ("beside", "same tower") else width)

    def forward(self, x: Tensor, *more: Tensor) -> Any:
        y = self.blocks(self.first(x))
        if self.second == "same tower":
            return self.outputs(torch.cat((y, self.blocks(self.first(more[0]))), -1))
        if self.other is None:
            return self.outputs(y)
        z = self.other(more[0])
        return self.outputs(
            {"sum": lambda: y + z, "product": lambda: y * z}.get(self.second, lambda: torch.cat((y, z), 1))()
        )

    def examples(self, batch: int, generator: torch.Generator) -> Inputs:
        count = 1 if self.second is None else 2
        return tuple(torch.randn(batch, 4, generator=generator, dtype=torch.float64) for _ in range(count))


def network(seed: int) -> nn.Module:
    """Returns the net of a seed, in eval mode and float64; its `examples` makes inputs."""
    draw = Draw(seed)
    net = draw.pick((OfMaps, OfMaps, OfMaps, OfTokens, OfTokens, OfRows))(draw)
    return filled(net, seed)


def inputs_of(net: nn.Module, batch: int, seed: int = 0) -> Inputs:
    inputs: Inputs = net.examples(batch, torch.Generator().manual_seed(seed))  # type: ignore[operator]
    return inputs
