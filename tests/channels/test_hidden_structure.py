"""Structure that is there though numbers are NaN or equal, layers are called twice, or code splits its own way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.cut_checks import found_in, halved, sizes
from tests.helpers.tiny_task import TinyTask
from toolkit.channels.changes import changed, differ
from toolkit.channels.cut import KeptUnits, patch_attributes
from toolkit.channels.proof import cut_error
from toolkit.hooks.tensors import equal
from toolkit.measure.macs import count_macs
from toolkit.stages.channel_prune.apply import apply_channel_prune
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Batch

C = 8


class Lambda(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Tensor) -> Tensor:
        return self.function(*values)


class Padded(nn.Module):
    """Attention in which rows of padding are NaN, or infinite, and are taken out behind it."""

    def __init__(self, heads: int = 2, broken: float = torch.nan) -> None:
        super().__init__()
        self.heads, self.broken = heads, broken
        self.q, self.k, self.v, self.out = (nn.Linear(C, C) for _ in range(4))
        self.wide, self.back = nn.Linear(C, 2 * C), nn.Linear(2 * C, C)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.mT).masked_fill(~(there[:, None, :, None] & there[:, None, None]), -torch.inf).softmax(-1)
        mixed = torch.where(weights.isnan(), self.broken, weights) @ v
        x = x + torch.where(there[..., None], self.out(mixed.transpose(1, 2).flatten(2)), 0.0)
        return x + self.back(torch.relu(self.wide(x)))


class PaddedNet(nn.Module):
    """Ids [B, T] with 0 as padding -> [B, 3]."""

    def __init__(self, broken: float = torch.nan) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, C)
        self.blocks = nn.ModuleList(Padded(broken=broken) for _ in range(2))
        self.head = nn.Linear(C, 3)

    def forward(self, ids: Tensor) -> Tensor:
        there, x = ids != 0, self.embed(ids)
        for block in self.blocks:
            x = block(x, there)
        return self.head((x * there[..., None]).sum(1))


IDS = {"none": [[3, 5, 7, 9]], "at the end": [[3, 5, 0, 0]], "at the start": [[0, 0, 4, 2], [0, 1, 1, 1]]}


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("padding", IDS)
def test_rows_of_padding_hide_nothing(padding: str, broken: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PaddedNet(broken).eval()
    found = halved(net, (torch.tensor(IDS[padding]),), (torch.tensor([[1, 2, 3, 0]]),), tmp_path)
    assert sizes(found) == {"blocks.0": 2, "blocks.0.wide": 16, "blocks.1": 2, "blocks.1.wide": 16, "embed": 8}


class PaddedTask(TinyTask):
    """Random sentences with padding, for a net whose attention is NaN there."""

    name = "padded"
    protected = ("head",)

    def __init__(self) -> None:
        super().__init__(train_steps=0)

    def build_model(self) -> nn.Module:
        return PaddedNet()

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return (torch.tensor([[3, 5, 7, 0]] * batch_size),)

    def _batch(self, batch_size: int, seed: int) -> Batch:
        ids = torch.randint(0, 20, (batch_size, 4), generator=torch.Generator().manual_seed(seed))
        ids[:, 3] = 0
        return Batch((ids,), ids[:, 0] % 3)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize("importance", ["activation", "obs", "newton"])
def test_rows_of_padding_do_not_count_in_importance_and_repair(importance: str, tiny_context: StageContext) -> None:
    task = PaddedTask()
    dense = task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, task.example_inputs(1)).total

    context = StageContext(dense, macs(dense), macs, torch.device("cpu"), 0, tiny_context.console)
    config = ChannelPrune(keep=Keep(heads=0.5, mlp=0.5), importance=importance)
    model, detail = apply_channel_prune(task.load_baseline(), task, config, context)
    assert {"blocks.0.out", "blocks.0.back"} <= {entry.layer for entry in detail.repairs}
    assert all(part.isfinite().all() for part in model.parameters())


def test_equal_numbers_are_those_that_are_equal_nan_among_them() -> None:
    one, other = torch.tensor([1.0, torch.nan, torch.inf]), torch.tensor([1.0, torch.nan, torch.inf])
    assert equal(one, other) and not differ([one], [other]) and not changed(one, other, 0).any()
    other[1] = 2.0
    assert changed(one, other, 0).tolist() == [False, True, False]
    assert not equal(one, other[:2])


def test_nan_in_one_of_two_models_alone_is_an_error() -> None:
    wide, narrow = nn.Linear(2, 2), nn.Linear(2, 2)
    narrow.load_state_dict(wide.state_dict())
    assert cut_error(wide, narrow, [], (torch.tensor([[torch.nan, 1.0], [1.0, 1.0]]),)) == 0.0
    with torch.no_grad():
        narrow.bias[0] = torch.nan
    assert cut_error(wide, narrow, [], (torch.ones(1, 2),)) == float("inf")


class Tokens(nn.Module):
    """Attention whose scale, or last layer, may be all zeros: [B, T, C] -> [B, T, 3]."""

    def __init__(self, scale: float = 1.0, last: float = 1.0, heads: int = 4) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, 4
        self.first = nn.Linear(C, 16)
        self.q, self.k, self.v, self.out = (
            nn.Linear(16, 4 * heads),
            *(nn.Linear(16, 4 * heads) for _ in range(2)),
            nn.Linear(4 * heads, 16),
        )
        self.scale = nn.Parameter(torch.full((16,), scale))
        self.head = nn.Linear(16, 3)
        with torch.no_grad():
            self.out.weight.mul_(last)
            self.out.bias.mul_(last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        shape = (self.num_heads, self.head_dim)
        q, k, v = (layer(x).unflatten(-1, shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x + self.scale * self.out(mixed))


EQUAL: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "inputs of zeros": (Tokens, torch.zeros(1, 5, C)),
    "inputs of ones": (Tokens, torch.ones(2, 5, C)),
    "equal tokens": (Tokens, torch.randn(1, 1, C, generator=torch.Generator().manual_seed(1)).expand(1, 5, C)),
    "a scale of zeros": (lambda: Tokens(scale=0.0), torch.randn(1, 5, C)),
    "a last layer of zeros": (lambda: Tokens(last=0.0), torch.randn(1, 5, C)),
}


@pytest.mark.parametrize("case", EQUAL)
def test_equal_numbers_hide_nothing(case: str, tmp_path: Path) -> None:
    """Among equal tokens attention does not depend on queries and keys: its values alone could be cut, wrongly.

    Four heads of four channels: the attributes that hold both numbers are equal too.
    """
    torch.manual_seed(0)
    build, inputs = EQUAL[case]
    net = build().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fresh = torch.randn(2, 5, C, generator=torch.Generator().manual_seed(2))
    found = halved(net, (inputs,), (fresh,), tmp_path)
    assert {group.kind: group.num_units for group in found.groups if group.kind == "attention"} == {"attention": 4}
    (attention,) = found.of_kind("attention")
    assert set(attention.producers) == {"q", "k", "v"}
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


class Levels(nn.Module):
    """One head over several levels of a pyramid, with a norm of its own."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels, self.stem = levels, nn.Conv2d(3, 8, 3, padding=1)
        self.a, self.norm, self.b = nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = (x[..., :: 2**level, :: 2**level] for level in range(self.levels))
        return [self.out(torch.relu(self.b(torch.relu(self.norm(self.a(one)))))) for one in maps]


class Siamese(nn.Module):
    """One tower for two inputs, whose ends are read side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(C, 12), nn.ReLU(), nn.Linear(12, 6))
        self.join = nn.Linear(12, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.join(torch.cat((self.tower(x), torch.relu(self.tower(y))), -1))


class Repeated(nn.Module):
    """One block, three times over."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(C, 12), nn.LayerNorm(12), nn.Linear(12, 3)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for _ in range(3):
            x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.head(x)


class Rolled(nn.Module):
    """The second call reads the channels of the first in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.write, self.read, self.head = nn.Linear(C, 12), nn.Linear(12, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.write(x)
        return self.head(torch.cat((self.read(y), self.read(y.roll(1, -1))), -1))


CALLED_TWICE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "one level": (lambda: Levels(1), (1, 3, 8, 8), {"stem": 8, "a": 16, "b": 16}),
    "three levels": (lambda: Levels(3), (1, 3, 8, 8), {"stem": 8, "a": 16, "b": 16}),
    "a siamese tower": (Siamese, (2, C), {"tower.0": 12, "tower.2": 6}),
    "a block three times": (Repeated, (2, 4, C), {"embed": 12, "up": 24}),
}


@pytest.mark.parametrize("case", CALLED_TWICE)
def test_layers_that_are_called_more_than_once_are_cut(case: str, tmp_path: Path) -> None:
    build, shape, expected = CALLED_TWICE[case]
    torch.manual_seed(0)
    count = 2 if case == "a siamese tower" else 1
    inputs, fresh = (tuple(torch.randn(shape) for _ in range(count)) for _ in range(2))
    assert sizes(halved(build().eval(), inputs, fresh, tmp_path)) == expected


def test_calls_that_do_not_agree_are_named() -> None:
    torch.manual_seed(0)
    found = found_in(Rolled().eval(), (torch.randn(2, C),))
    assert found.refused["write"] == "a change of some of its channels reaches all of them"
    assert "read" in sizes(found)


class Chunked(nn.Module):
    """Parts that go on in six ways, as a modulation does: scales, shifts and gates of a stream, from one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stream, self.six, self.out = nn.Linear(C, 12), nn.Linear(C, 72), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f = self.six(x).chunk(6, -1)
        y = self.stream(x)
        y = y + a * torch.tanh(y * b + c)
        return self.out(y + d * torch.tanh(y * e + f))


class SplitBy(nn.Module):
    """Splits a layer's outputs by what an attribute says, and reads the parts in different layers."""

    def __init__(self, sizes: object, parts: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.first = sizes, nn.Conv2d(4, sum(parts), 1)
        self.rest = nn.ModuleList(nn.Conv2d(part, 5, 3, padding=1) for part in parts)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.first(x).split(self.sizes, 1)
        return sum(layer(torch.relu(part)) for layer, part in zip(self.rest, parts, strict=True))


class Interleaved(nn.Module):
    """Gate and value take turns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(C, 24), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.out(y[..., ::2].sigmoid() * y[..., 1::2])


class Shuffled(nn.Module):
    """Two layers side by side, whose channels are put in another order before the next layer reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(C, 6), nn.Linear(C, 6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack((self.first(x).relu(), self.second(x).tanh()), -1).flatten(-2)
        return self.out(both.flip(-1))


class Backwards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class ChannelShuffle(nn.Module):
    """Channels of two halves take turns: with channels gone here and there, others are neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(C, 12), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.first(x).unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)
        left, right = mixed.chunk(2, -1)
        return self.out(left * right.tanh())


def test_a_cut_that_is_right_for_regular_patterns_alone_is_refused() -> None:
    torch.manual_seed(0)
    found = found_in(ChannelShuffle().eval(), (torch.randn(ROWS),))
    assert "first" not in sizes(found)
    assert found.refused["first"].startswith("cut in half it computes something else")


class TwoPerChannel(nn.Module):
    """Depthwise convolutions with more outputs than inputs, one of them transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(4, 6, 1), nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.up, self.last = nn.ConvTranspose2d(12, 36, 2, 2, groups=12), nn.Conv2d(36, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(torch.relu(self.twice(torch.relu(self.first(x))))))


IMAGE, ROWS = (1, 4, 6, 6), (2, C)

SPLITS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "six parts": (Chunked, ROWS, {"six": 12}),
    "an attribute": (lambda: SplitBy(8, (8, 8)), IMAGE, {"first": 8}),
    "a tuple": (lambda: SplitBy((8, 8), (8, 8)), IMAGE, {"first": 8}),
    "a list of unlike parts": (lambda: SplitBy([4, 12], (4, 12)), IMAGE, {"first": 4}),
    "five parts": (lambda: SplitBy(4, (4, 4, 4, 4, 4)), IMAGE, {"first": 4}),
    "gates that take turns": (Interleaved, ROWS, {"first": 12}),
    "channels in another order": (Shuffled, ROWS, {"first": 6}),
    "backwards": (lambda: nn.Sequential(nn.Linear(C, 12), Backwards(), nn.Linear(12, 3)), ROWS, {"0": 12}),
    "two outputs per channel": (TwoPerChannel, IMAGE, {"first": 6}),
    "channels last": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 1), Lambda(lambda x: x.permute(0, 2, 3, 1).flatten(1)), nn.Linear(288, 4)
        ),
        IMAGE,
        {"0": 8},
    ),
    "channels in the middle": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 1), Lambda(lambda x: x.transpose(1, 2).flatten(1)), nn.Linear(288, 4)),
        IMAGE,
        {"0": 8},
    ),
    "a module that unflattens": (
        lambda: nn.Sequential(nn.Linear(C, 24), nn.Unflatten(1, (8, 3)), nn.Conv1d(8, 4, 2), nn.Flatten()),
        ROWS,
        {"0": 8},
    ),
    "pixels from channels": (
        lambda: nn.Sequential(nn.Conv2d(4, 24, 1), nn.PixelShuffle(2), nn.Conv2d(6, 3, 1)),
        IMAGE,
        {"0": 6},
    ),
}


@pytest.mark.parametrize("case", SPLITS)
def test_channels_are_found_wherever_forward_code_puts_them(case: str, tmp_path: Path) -> None:
    build, shape, expected = SPLITS[case]
    torch.manual_seed(0)
    found = halved(build().eval(), (torch.randn(shape),), (torch.randn(shape),), tmp_path)
    assert {name: units for name, units in sizes(found).items() if name in expected} == expected


def test_a_number_that_would_not_be_whole_is_refused() -> None:
    torch.manual_seed(0)
    net = SplitBy([4, 12], (4, 12)).eval()
    (group,) = [one for one in found_in(net, (torch.randn(IMAGE),)).groups if one.name == "first"]
    net.sizes = [5, 12]
    with pytest.raises(ValueError, match=r"sizes would be 2\.5, which is no whole number"):
        patch_attributes(net, KeptUnits(group, (0, 2)))
