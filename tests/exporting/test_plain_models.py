"""Plain exports of what models may have: stand-ins, folded weights, shared tensors, odd buffers."""

from __future__ import annotations

import functools
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from tests.helpers import checkpoint_net
from tests.helpers.block_nets import BlockNet, block_net, net_inputs
from tests.helpers.plain_exports import PLAIN, exported, load_plain, run_here, save, task_of
from toolkit import export_model
from toolkit.base.errors import ExportError
from toolkit.blocks.drop import block_end, drop_block
from toolkit.blocks.find import find_blocks
from toolkit.hooks.folding import fold_all
from toolkit.repair.stream import bypass_arguments
from toolkit.stand_ins.dynamic_arguments import DynamicConvArguments
from toolkit.stand_ins.registry import make_stand_in
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.settings import ZooModel

DIM = 8

IDS = (torch.arange(14).reshape(2, 7) % 5,)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(monkeypatch)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kind", ["basic", "transformer", "video"])
def test_linear_maps(kind: str, rank: int | None, tmp_path: Path) -> None:
    dense, inputs = block_net(kind), net_inputs(kind, 0, 1, 2)[0]
    model = block_net(kind)
    find_blocks(model, inputs)
    end = block_end(model, "blocks.1")
    arguments = bypass_arguments(model, "blocks.1", inputs, structure=end.structure, behind=end.behind, rank=rank)
    assert arguments is not None
    bypass = make_stand_in(model.get_submodule("blocks.1"), arguments)
    for part in bypass.parameters():
        part.data.normal_()
    drop_block(model, "blocks.1", bypass)
    drop_block(model, "blocks.2")
    save(tmp_path / "model", model, dense, inputs)
    _, text = exported(tmp_path / "model", task_of(functools.partial(BlockNet, kind), inputs))
    assert "class LinearMap(InPlace" in text and f'"channels": {DIM}, "rank": {rank}' in text
    assert 'REMOVED = (\n    "blocks.2",\n)' in text


def test_shared_tensors_tuples_and_factors(tmp_path: Path) -> None:
    dense, inputs = checkpoint_net.Net(), checkpoint_net.example_inputs()
    save(tmp_path / "model", checkpoint_net.compressed(), dense, inputs)
    _, text = exported(tmp_path / "model", task_of(checkpoint_net.Net, inputs))
    assert '"blocks.2": {"num_heads": 2, "shape": (2, 2), "scale": 0.8}' in text
    plain = load_plain(tmp_path / "plain").load_model()
    assert plain.out.weight is plain.embed.weight


class Folds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(6, 6))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self.second, self.third = weight_norm(nn.Linear(6, 6)), spectral_norm(nn.Linear(6, 6))
        self.last = prune.random_unstructured(nn.Linear(6, 6), "weight", 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.third(self.second(self.first(x).relu()).relu()).relu())


def test_folded_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained = Folds().eval()
    folded = tuple(fold_all(trained))
    assert len(folded) == 4
    inputs = (torch.randn(2, 6),)
    save(tmp_path / "model", trained, trained, inputs, folded=folded)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        _, text = exported(tmp_path / "model", task_of(Folds, inputs))
    for line in (
        '"first.weight": "the parametrization WeightNorm"',
        '"second.weight": "weight_norm"',
        '"third.weight": "spectral_norm"',
        '"last.weight": "a pruning mask"',
    ):
        assert line in text


class Odd(nn.Module):
    """Complex numbers, a buffer that a state dict leaves out, and one that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.wave = nn.Parameter(torch.randn(6, dtype=torch.complex64))
        self.register_buffer("left_out", torch.arange(6.0), persistent=False)
        self.register_buffer("held", torch.arange(6.0))
        self.wide, self.narrow = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) * self.left_out + self.held
        return self.narrow((y * self.wave).real)


def test_complex_numbers_and_buffers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense, model = Odd(), Odd()
    keep = torch.tensor([1, 2, 5])
    model.load_state_dict(dense.state_dict())
    model.wave = nn.Parameter(dense.wave.detach()[keep])
    model.left_out, model.held = dense.left_out[keep], dense.held[keep]
    model.wide.weight, model.wide.bias = nn.Parameter(dense.wide.weight[keep]), nn.Parameter(dense.wide.bias[keep])
    model.narrow.weight = nn.Parameter(dense.narrow.weight[:, keep])
    model.wide.out_features = model.narrow.in_features = 3
    inputs = (torch.randn(2, 4),)
    save(tmp_path / "model", model, dense, inputs)
    _, text = exported(tmp_path / "model", task_of(Odd, inputs))
    assert 'COMPLEX = (\n    "wave",\n)' in text and 'BUFFERS = (\n    "left_out",\n)' in text
    assert '"held": (3,),  # was (6,)' in text


class Convolving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_a_dynamic_convolution_is_refused(tmp_path: Path) -> None:
    dense, inputs = Convolving(), (torch.randn(2, 4, 8),)
    arguments = DynamicConvArguments(inputs=4, steps=(2,), channels=(4,), order=(0, 1, 2, 3))
    model = Convolving()
    model.conv = make_stand_in(dense.conv, arguments)
    save(tmp_path / "model", model, dense, inputs)
    with pytest.raises(ExportError, match=r"^conv cannot be written as plain code: .*--format onnx or torch_export$"):
        exported(tmp_path / "model", task_of(Convolving, inputs))


def test_a_module_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"needs a saved model: toolkit\.export_run"):
        export_model(Odd().eval(), lambda size: (torch.randn(size, 4),), tmp_path / "plain", PLAIN)
    assert list(tmp_path.iterdir()) == []


class Tied(nn.Module):
    """Input and output share a table; a list holds a width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
        self.out.weight = self.embed.weight
        self.sizes = [6, 1]

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids).unflatten(-1, self.sizes).flatten(-2))


def test_a_shared_tensor_that_is_smaller_and_a_list_of_widths(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense, model = Tied(), Tied()
    model.embed.weight = model.out.weight = nn.Parameter(torch.randn(9, 4))
    model.embed.embedding_dim = model.out.in_features = 4
    model.sizes = [4, 1]
    save(tmp_path / "model", model, dense, IDS)
    exported(tmp_path / "model", task_of(Tied, IDS))
    plain = load_plain(tmp_path / "plain").load_model()
    assert plain.out.weight is plain.embed.weight and plain.sizes == [4, 1]


class OfZoo:
    """As a task with settings builds its model."""

    def __init__(self) -> None:
        self.settings = ZooModel(name="timm/test_resnet", arguments={"num_classes": 2})

    def build_model(self) -> nn.Module:
        return build_zoo_model(self.settings.name, arguments=self.settings.arguments)


def make_of_zoo() -> nn.Module:
    return build_zoo_model("timm/test_resnet", {"num_classes": 2})


def test_a_task_that_builds_a_model_of_a_zoo(tmp_path: Path) -> None:
    model, inputs = OfZoo().build_model(), (torch.randn(2, 3, 32, 32),)
    save(tmp_path / "model", model, model, inputs)
    _, text = exported(tmp_path / "model", task_of(OfZoo().build_model, inputs))
    assert "return timm.create_model('test_resnet', pretrained=False, num_classes=2)" in text
    shutil.rmtree(tmp_path / "plain")
    with pytest.raises(ExportError, match="it calls this toolkit's build_zoo_model; call the library's own function"):
        exported(tmp_path / "model", task_of(make_of_zoo, inputs))
