"""Plain exports of the kinds of model there are, checked by the export in a process without the toolkit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from tests.helpers.plain_exports import PLAIN, compressed, exported, load_plain, run_here, save, task_of
from toolkit import export_run, load_model
from toolkit.base.errors import ExportError
from toolkit.checkpoint.manifest import read_manifest
from toolkit.tasks.cards import make_task
from toolkit.tasks.task_file import read_task_file


def assert_same_as_saved(folder: Path, inputs: tuple[torch.Tensor, ...], dense: nn.Module | None = None) -> None:
    """What load.py builds computes what the saved model does, on other inputs than the export tried."""
    plain, saved = load_plain(folder.parent / "plain").load_model(), load_model(folder, dense)
    with torch.no_grad():
        assert torch.allclose(plain(*inputs), saved(*inputs), atol=1e-5)
    assert not plain.training


def test_a_timm_model_without_blocks_and_with_fewer_channels(tmp_path: Path) -> None:
    arguments = {"num_classes": 5}
    torch.manual_seed(0)
    dense = timm.create_model("test_vit", **arguments).eval()
    inputs = (torch.randn(2, 3, 160, 160),)
    model = compressed(dense, inputs, ["blocks.2", "blocks.4"], cuts=2)
    factory = {"zoo": "timm/test_vit", "arguments": arguments, "input_size": None}
    save(tmp_path / "model", model, dense, inputs, factory=factory)
    report, text = exported(tmp_path / "model")
    assert {entry.batch_size for entry in report.parity} == {1, 2}
    assert all(entry.relative < 1e-5 and entry.scale > 0 for entry in report.parity)
    assert report.settings.tolerance == 1e-5
    assert [file.name for file in report.files] == ["plain/load.py", "plain/model.safetensors"]
    assert report.files[1].sha256 == read_manifest(tmp_path / "model" / "model.json").weights.sha256
    assert 'REMOVED = (\n    "blocks.2",\n    "blocks.4",\n)' in text
    assert '"blocks.0.mlp.fc1.weight": (96, 64),  # was (192, 64)' in text
    assert '"blocks.0.attn": {"num_heads": 1, "attn_dim": 32}' in text
    assert "timm.create_model('test_vit', pretrained=False, num_classes=5)" in text
    assert f"Needs safetensors (here {sys.modules['safetensors'].__version__}), timm (here {timm.__version__})" in text
    assert_same_as_saved(tmp_path / "model", (torch.randn(3, 3, 160, 160),))


def test_a_torchvision_cnn_with_fewer_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, as another one would import torch and torchvision once more."""
    run_here(monkeypatch)
    torch.manual_seed(0)
    dense = torchvision.models.get_model("resnet18", weights=None, num_classes=3).eval()
    inputs = (torch.randn(2, 3, 32, 32),)
    model = compressed(dense, inputs, ["layer1.1"], cuts=3)
    factory = {"zoo": "torchvision/resnet18", "arguments": {"num_classes": 3}, "input_size": 32}
    save(tmp_path / "model", model, dense, inputs, factory=factory)
    _, text = exported(tmp_path / "model")
    assert "torchvision.models.get_model('resnet18', weights=None, num_classes=3)" in text
    assert '{"out_channels": 32}' in text and '"layer1.1",' in text
    assert_same_as_saved(tmp_path / "model", (torch.randn(3, 3, 48, 48),))


def test_the_detector_that_ships(tmp_path: Path) -> None:
    """Its source stands alone, so it is copied: nobody could import it without the toolkit."""
    task = make_task("tad-watch")
    inputs = task.example_inputs(1)
    model = compressed(task.load_baseline(), inputs, ["blocks.3", "blocks.5"])
    save(tmp_path / "model", model, task.build_model(), inputs, factory={"task": "tad-watch"})
    _, text = exported(tmp_path / "model")
    assert "class TransformerDetector(nn.Module):" in text and "DetectorConfig(num_channels=6, " in text
    assert "InPlaceOfAny" not in text, "the short form does; dataclasses need their module to be known"


TASK_FILE = """\
import torch
from torch import nn

import nets
from nets import Block as Part
from toolkit import ClassificationTask

WIDTH = 8


def widths(count):
    return [WIDTH] * count


class Net(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.blocks = nn.Sequential(*(Part(width) for width in widths(count)))
        self.head = nn.Linear(WIDTH, nets.CLASSES)

    def forward(self, x):
        return self.head(self.blocks(x))


def make_net():
    return Net(3)


def make_task():
    torch.manual_seed(0)
    data = [(torch.randn(12, 8), torch.arange(12) % 3) for _ in range(3)]
    return ClassificationTask(make_net, make_net(), train=data[0], validation=data[1], test=data[2], name="mine")
"""

NETS = """\
from torch import nn

CLASSES = 3


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.narrow(self.wide(x).relu())
"""


def test_a_task_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file imports the toolkit, so its net is copied; the module beside it does not, so it is imported."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "my_task.py").write_text(TASK_FILE)
    (tmp_path / "nets.py").write_text(NETS)
    task = read_task_file(str(tmp_path / "my_task.py")).make()
    dense, inputs = task.load_baseline(), task.example_inputs(2)
    save(tmp_path / "model", compressed(dense, inputs, ["blocks.1"]), dense, inputs)
    _, text = exported(tmp_path / "model", task)
    assert "import nets\n" in text and "from nets import Block as Part\n" in text and "WIDTH = 8\n" in text
    assert "nets (your own)" in text and "class Net(nn.Module):" in text and "return make_net()" in text
    assert "def make_task" not in text
    assert_same_as_saved(tmp_path / "model", (torch.randn(5, 8),), task.build_model())
    (tmp_path / "nets.py").write_text(NETS.replace("from torch import nn", "import toolkit\nfrom torch import nn"))
    (tmp_path / "again").mkdir()
    (tmp_path / "model").rename(tmp_path / "again" / "model")
    with pytest.raises(ExportError, match="it uses the module nets, which needs this toolkit; let build_model of"):
        exported(tmp_path / "again" / "model", task)


def test_what_cannot_be_imported_without_the_toolkit_is_found(tmp_path: Path) -> None:
    """The check of the export itself: a name that the program needs is imported inside of the user's function."""
    dense, inputs = nn.Sequential(nn.Linear(4, 4)), (torch.randn(2, 4),)
    save(tmp_path / "model", dense, dense, inputs)
    with pytest.raises(ExportError, match="cannot import this toolkit: ModuleNotFoundError: No module named 'toolkit'"):
        export_run(tmp_path / "model", PLAIN, task=task_of(sneaky, inputs), path=tmp_path / "plain")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def sneaky() -> nn.Module:
    from toolkit.base.words import plain  # noqa: PLC0415

    assert plain("x")
    return nn.Sequential(nn.Linear(4, 4))
