"""The found lists are written by hand; every found block is dropped and the model still runs."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toolkit.base.errors import StageError
from toolkit.blocks.drop import block_dropped, drop_block
from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.stand_ins.nothing import Nothing

C = 8


class PreNorm(nn.Module):
    """x + f(norm(x)), twice; `mixer` keeps the sequence, and a layer scale sits on the second branch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.mixer = nn.Linear(C, C)
        self.mlp = nn.Sequential(nn.Linear(C, 2 * C), nn.GELU(), nn.Linear(2 * C, C))
        self.scale = nn.Parameter(torch.ones(C))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.scale * self.mlp(self.norm2(x))


class PostNorm(nn.Module):
    """norm(x + f(x)), as in BERT; `scaled` multiplies by a mask on the way."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.LayerNorm, scaled: bool = False) -> None:
        super().__init__()
        self.norm, self.layer, self.scaled = norm(C), nn.Linear(C, C), scaled

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + self.layer(x))
        return x * torch.ones(len(x), 1, 1) if self.scaled else x


class BasicBlock(nn.Module):
    """relu(x + f(x)) with in-place operators, as in torchvision; a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, project: bool = False) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = nn.Conv2d(inputs, outputs, 1) if project else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class TupleBlock(PreNorm):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return super().forward(x), x.mean()


class ModelOutputBlock(PreNorm):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return OrderedDict(state=super().forward(x), attention=x.mean())


class TupleNet(nn.Module):
    """Blocks that hand back more than the tensor, called by keyword."""

    def __init__(self, block: type[PreNorm], key: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, C)
        self.layers = nn.ModuleList(block() for _ in range(2))
        self.key = key

    def forward(self, ids: Tensor) -> Tensor:
        x: Tensor = self.embed(ids)
        for layer in self.layers:
            outputs: Any = layer(mask=None, x=x)
            assert len(outputs) == 2
            x = outputs[self.key]
        return x


class Mixed(nn.Module):
    """Blocks as plain attributes among layers that keep the shape and are no blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Linear(C, C)
        self.first = PreNorm()
        self.gate = nn.Linear(C, C)
        self.twice = PreNorm()
        self.last = PostNorm(scaled=True)
        self.unused = PreNorm()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.plain(x))
        x = self.twice(self.twice(x))
        return self.last(x * self.gate(x).sigmoid())


class Encoder(nn.Module):
    """Blocks held as plain attributes: the encoder is a stack of them, though in no container."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = PreNorm(), PreNorm()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class WithAdapter(PreNorm):
    """A block whose small residual adapters sit in a container: the block counts, not they."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleList([SmallResidual()])

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.adapters[0](super().forward(x))


class SmallResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(C, 1), nn.Linear(1, C)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.relu(self.down(x)))


class Repeats(nn.Module):
    """One block used over and over (ALBERT): nothing here can be dropped alone."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.ModuleList([PreNorm()])

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.groups[0](x)
        return x


class Entry(nn.Module):
    """Two tensor inputs: the residual stream is the second one, so the block cannot be passed through."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.layer = SecondInput(), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.layer(x), x)


class SecondInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(C, C)

    def forward(self, x: Tensor, stream: Tensor) -> Tensor:
        return stream + self.layer(x)


def torch_encoder(norm_first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(C, 2, 2 * C, batch_first=True, norm_first=norm_first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are off with norm_first
        return nn.Sequential(nn.Linear(C, C), nn.TransformerEncoder(layer, 3), nn.Linear(C, 2))


def resnet() -> nn.Module:
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 4, 3, padding=1),
            layer1=nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4)),
            layer2=nn.Sequential(BasicBlock(4, 6, project=True), BasicBlock(6, 6)),
            same_shape=nn.Conv2d(6, 6, 3, padding=1),
            projected=BasicBlock(6, 6, project=True),
        )
    )


TOKENS = (1, 5, C)
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], list[str]]] = {
    "pre-norm": (lambda: nn.Sequential(nn.Linear(C, C), PreNorm(), PreNorm()), TOKENS, ["1", "2"]),
    "post-norm": (lambda: nn.Sequential(PostNorm(), PostNorm(scaled=True)), TOKENS, ["0", "1"]),
    "post-rms-norm": (lambda: nn.Sequential(PostNorm(nn.RMSNorm), nn.Linear(C, C)), TOKENS, ["0"]),
    "resnet": (resnet, (1, 3, 6, 6), ["layer1.0", "layer1.1", "layer2.1"]),
    "nested stages": (
        lambda: nn.Sequential(nn.Sequential(nn.Sequential(PreNorm(), PreNorm()), nn.Sequential(PreNorm())), PreNorm()),
        TOKENS,
        ["0.0.0", "0.0.1", "0.1.0", "1"],
    ),
    "attributes": (Mixed, TOKENS, ["first", "last"]),
    "encoder": (lambda: Wrapped(Encoder()), TOKENS, ["inner.a", "inner.b"]),
    "stages": (
        lambda: nn.Sequential(nn.Linear(C, C), Wrapped(nn.Sequential(PreNorm(), PreNorm())), Wrapped(Encoder())),
        TOKENS,
        ["1.inner.0", "1.inner.1", "2"],
    ),
    "adapters": (lambda: nn.Sequential(nn.Linear(C, C), WithAdapter(), WithAdapter()), TOKENS, ["1", "2"]),
    "shared": (lambda: nn.Sequential(Repeats(), PreNorm()), TOKENS, ["1"]),
    "second input": (Entry, TOKENS, []),
    "torch pre-norm": (lambda: torch_encoder(True), TOKENS, ["1.layers.0", "1.layers.1", "1.layers.2"]),
    "torch post-norm": (lambda: torch_encoder(False), TOKENS, ["1.layers.0", "1.layers.1", "1.layers.2"]),
}


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


@pytest.mark.parametrize("case", CASES)
def test_found_and_dropped(case: str) -> None:
    build, shape, expected = CASES[case]
    model, inputs = build().eval(), (torch.randn(shape),)
    assert find_blocks(model, inputs) == expected
    for number, name in enumerate(expected):
        before = model(*inputs)
        drop_block(model, name)
        after = model(*inputs)
        assert after.shape == before.shape
        assert not torch.equal(after, before)
        assert len(dropped_blocks(model)) == number + 1
        assert not list(model.get_submodule(name).parameters())
    assert find_blocks(model, inputs) == []


@pytest.mark.parametrize(
    ("block", "key"), [(TupleBlock, 0), (ModelOutputBlock, "state")], ids=["tuple", "model output"]
)
def test_other_output_structures(block: type[PreNorm], key: Any) -> None:
    model, ids = TupleNet(block, key).eval(), torch.tensor([[1, 2, 3]])
    assert find_blocks(model, (ids,)) == ["layers.0", "layers.1"]
    drop_block(model, "layers.0")
    drop_block(model, "layers.1")
    assert torch.equal(model(ids), model.embed(ids))


def test_model_output_of_a_dropped_block_reads_like_the_original() -> None:
    model = TupleNet(ModelOutputBlock, "state").eval()
    find_blocks(model, (torch.tensor([[1, 2, 3]]),))
    drop_block(model, "layers.0")
    x = torch.randn(TOKENS)
    outputs = model.layers[0](x)
    assert outputs.state is outputs["state"] is outputs[0] is x
    assert outputs.attention is None


def test_dropped_block_is_the_identity_and_other_names_stay() -> None:
    model, inputs = nn.Sequential(PreNorm(), PreNorm()).eval(), torch.randn(TOKENS)
    find_blocks(model, (inputs,))
    kept = {name for name in model.state_dict() if name.startswith("1.")}
    drop_block(model, "0")
    assert set(model.state_dict()) == kept
    assert isinstance(model[0], Nothing)
    assert torch.equal(model(inputs), model[1](inputs))


def test_only_known_blocks_can_be_dropped() -> None:
    model = nn.Sequential(nn.Linear(C, C), PreNorm(), PreNorm())
    with pytest.raises(StageError, match="find_blocks"):
        drop_block(model, "1")
    find_blocks(model, (torch.randn(TOKENS),))
    for name in ("0", "1.mlp", "7", ""):
        with pytest.raises(StageError, match="known blocks: 1, 2"):
            drop_block(model, name)
    drop_block(model, "1")
    with pytest.raises(StageError, match="dropped already; known blocks: 2"):
        drop_block(model, "1")


def test_marks_travel_with_copies_and_blocks_come_back() -> None:
    model, inputs = nn.Sequential(PreNorm(), PreNorm()).eval(), torch.randn(TOKENS)
    find_blocks(model, (inputs,))
    model = copy.deepcopy(model)
    expected, block = model(inputs), model[1]
    with block_dropped(model, "1"):
        assert not torch.equal(model(inputs), expected)
    assert model[1] is block
    assert torch.equal(model(inputs), expected)


def test_finding_leaves_the_model_as_it_was() -> None:
    model = resnet().train()
    model.layer1.eval()
    model.stem.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    inputs = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        assert len(find_blocks(model, (inputs,))) == 3
    assert model.training
    assert model.layer2[0].bn1.training
    assert not model.layer1[0].training
    assert not model.stem.weight.requires_grad
    assert model.stem.bias.requires_grad
    assert not inputs.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_error_in_the_forward_pass_leaves_no_hooks() -> None:
    model = resnet().train()
    with pytest.raises(StageError, match="cannot be followed"):
        find_blocks(model, (torch.randn(1, 5, 6, 6),))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_works_under_inference_mode_and_with_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(C, C), PreNorm()).requires_grad_(False)
    with torch.inference_mode():
        assert find_blocks(model, (torch.randn(TOKENS),)) == ["1"]
    assert not any(parameter.requires_grad for parameter in model.parameters())
