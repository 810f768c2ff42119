"""The command line around an export, on the task that ships; what is exported and how is tested in tests/exporting."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import toolkit
from tests.helpers.plain_exports import compressed, save
from toolkit.base.errors import ExportError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.checkpoint.factory import example_inputs_of, origin_of
from toolkit.checkpoint.manifest import MANIFEST_FILE, read_manifest
from toolkit.checkpoint.save import save_model
from toolkit.export import main
from toolkit.exporting import saved
from toolkit.exporting.report import ExportReport, ExportSettings
from toolkit.tasks.cards import make_task
from toolkit.tasks.task_file import read_task_file


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run leaves it: `model/` holds the detector with three of its twelve blocks."""
    folder = tmp_path_factory.mktemp("run")
    task = make_task("tad-watch")
    model, inputs = task.load_baseline(), task.example_inputs(1)
    for block in find_blocks(model, inputs)[2:-1]:
        drop_block(model, block)
    save_model(
        folder / "model",
        model,
        task.build_model(),
        factory={"task": "tad-watch"},
        example_inputs=inputs,
        recipe_sha256=None,
    )
    return folder


def test_onnx_of_a_run(run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "watch.onnx"
    words = [str(run_folder), "--format", "onnx", "--out", str(path), "--repeats", "2", "--threads", "1"]
    assert main([*words, "--batch-size", "3"]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert "parity: all below the tolerance of 0.0001 of the output's scale" in printed.out
    assert f"exported model: {path}    (onnx, opset " in printed.out and "any batch size" in printed.out
    assert "latency on the CPU" in printed.out
    record = json.loads((tmp_path / "watch.onnx.json").read_text())
    assert record["weights_sha256"] == read_manifest(run_folder / "model" / MANIFEST_FILE).weights.sha256
    assert record["inputs"] == [{"name": "signal", "shape": ["batch", 6, 3840], "dtype": "float32"}]
    assert {entry["batch_size"] for entry in record["parity"]} == {1, 3}
    assert [len(entry["samples_s"]) for entry in record["latency"]] == [2, 2]
    inputs = make_task("tad-watch").example_inputs(2)
    found = onnxruntime.InferenceSession(path).run(None, {"signal": inputs[0].numpy()})
    with torch.no_grad():
        wanted = toolkit.load_model(run_folder)(*inputs)
    assert all(torch.allclose(torch.as_tensor(one), other, atol=1e-3) for one, other in zip(found, wanted, strict=True))


def test_torch_export_of_a_saved_model(run_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = run_folder / "model"
    assert main([str(folder), "--format", "torch_export", "--repeats", "0"]) == 0
    printed = capfd.readouterr()
    assert printed.err == "" and "latency" not in printed.out
    assert f"exported model: {folder / 'exported.pt2'}    (torch_export, any batch size)" in printed.out
    assert "load only files that you trust" in printed.out
    assert main([str(folder), "--format", "torch_export"]) == 2
    assert "exported.pt2: exists already" in capfd.readouterr().err


def test_a_miss_is_an_error_and_leaves_nothing(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [str(run_folder), "--format", "onnx", "--out", str(tmp_path / "x.onnx"), "--static-batch"]
    assert main([*words, "--tolerance", "1e-12"]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "the exported file does not compute what the model does: output" in printed.err
    assert "the tolerance is 1e-12" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_a_fixed_batch_size_is_announced(
    run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * int(x.shape[0])

    monkeypatch.setattr(saved, "load_model", lambda *_: Fixed())
    assert main([str(run_folder), "--format", "torch_export", "--out", str(tmp_path / "x.pt2"), "--repeats", "0"]) == 0
    printed = capfd.readouterr().out
    assert printed.startswith("The batch size is fixed at 1. Any batch size was not possible:\n  the model cannot be")
    assert "(torch_export, batch size 1)" in printed


def test_inputs_of_a_zoo_model(run_folder: Path) -> None:
    manifest = read_manifest(run_folder / "model" / MANIFEST_FILE)
    factory = {"zoo": "torchvision/resnet18", "arguments": {}, "input_size": 32}
    origin = origin_of(manifest.model_copy(update={"factory": factory}), Path("model.json"))
    inputs_of = example_inputs_of(origin)
    assert [tuple(tensor.shape) for tensor in inputs_of(3)] == [(3, 3, 32, 32)]


def test_a_model_of_ones_own_goes_through_python(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, inputs = nn.Linear(3, 2), (torch.ones(1, 3),)
    save_model(tmp_path / "own", model, model, factory={"task": "own"}, example_inputs=inputs, recipe_sha256=None)
    assert main([str(tmp_path / "own"), "--format", "onnx"]) == 2
    assert "export it from Python: toolkit.export_run(" in capfd.readouterr().err


def test_no_model_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--format", "onnx"]) == 2
    assert str(tmp_path / "model.json") in capfd.readouterr().err


def test_interrupted(run_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(toolkit.__dict__, "export_run", interrupt)
    assert main([str(run_folder), "--format", "onnx"]) == 130
    assert capfd.readouterr().err == "interrupted; nothing was kept\n"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("", "required: --format"),
        ("--format tflite", "invalid choice: 'tflite'"),
        ("--format onnx --batch-size 0", "--batch-size: 0 is not 1 or more"),
        ("--format onnx --batch-size two", "--batch-size: invalid"),
        ("--format onnx --tolerance 2", "--tolerance: 2 is not between 0 and 1"),
        ("--format onnx --tolerance nan", "--tolerance: nan is not between 0 and 1"),
        ("--format onnx --repeats -1", "--repeats: -1 is not 0 or more"),
    ],
)
def test_wrong_arguments(words: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["somewhere", *words.split()])
    assert caught.value.code == 2
    assert fault in capsys.readouterr().err


def test_plain_code_of_a_run(run_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_folder), "--format", "plain", "--threads", "1"]) == 0
    printed = capfd.readouterr()
    folder = run_folder / "exported_plain"
    assert printed.err == "" and "latency" not in printed.out
    assert "parity: all below the tolerance of 1e-05 of the output's scale" in printed.out
    assert f"exported model: {folder}    (plain, any batch size)\nits record:     {folder}.json\n" in printed.out
    assert "Its load.py was run in a process that cannot import this toolkit." in printed.out
    assert sorted(path.name for path in folder.iterdir()) == ["load.py", "model.safetensors"]
    record = json.loads((run_folder / "exported_plain.json").read_text())
    assert [file["name"] for file in record["files"]] == ["exported_plain/load.py", "exported_plain/model.safetensors"]
    assert record["files"][1]["sha256"] == record["weights_sha256"]


TASK = """\
import torch
from torch import nn
from toolkit import ClassificationTask


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.blocks, self.head = nn.Embedding(9, 8), nn.Sequential(Block(), Block()), nn.Linear(8, 3)

    def forward(self, ids, mask):
        x = self.blocks(self.embed(ids)) * mask[..., None]
        return self.head(x.sum(1) / mask.sum(1, keepdim=True))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.narrow(self.wide(x).relu())


def make_task():
    torch.manual_seed(0)
    data = [(torch.randint(9, (12, 6)), torch.ones(12, 6), torch.arange(12) % 3) for _ in range(3)]
    return ClassificationTask(Net, Net(), train=data[0], validation=data[1], test=data[2], name="words")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A task file of one's own, whose model has two inputs, and the folder of a model without one of its blocks."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "words.py").write_text(TASK)
    task = read_task_file(str(folder / "words.py")).make()
    dense, inputs = task.load_baseline(), task.example_inputs(2)
    save(folder / "model", compressed(dense, inputs, ["blocks.1"]), dense, inputs, factory={"task": "words"})
    return folder / "words.py", folder / "model"


def test_named_axes_of_a_task_of_ones_own_against_the_unmodified_model(
    own: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, folder = own
    words = [str(folder), "--task", str(file), "--format", "onnx", "--out", str(tmp_path / "x.onnx"), "--threads", "1"]
    words += ["--repeats", "2", "--against-dense"]
    assert main([*words, "--dynamic", "ids:1=sequence", "mask:1=sequence"]) == 0
    printed = capfd.readouterr()
    assert "latency on the CPU, against the unmodified model" in printed.out and "unmodified, onnx" in printed.out
    assert "1, sequence 5" in printed.out and printed.err == ""
    record = ExportReport.model_validate_json((tmp_path / "x.onnx.json").read_bytes())
    assert [info.shape for info in record.inputs] == [("batch", "sequence")] * 2
    assert [(entry.batch_size, entry.threads) for entry in record.against_dense] == [(1, 1), (2, 1)]
    for entry in record.against_dense:
        assert len(entry.samples_s) == len(entry.dense_samples_s) == 2 and entry.ratio > 0
        assert entry.median_s > 0 and entry.dense_median_s > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.onnx", "x.onnx.json"]
    assert main([*words, "--dynamic", "ids:1=sequence", "--out", str(tmp_path / "y")]) == 2
    assert "runs at no other size of sequence than 6" in capfd.readouterr().err


def test_the_unmodified_model_and_the_setting_go_together(tmp_path: Path) -> None:
    settings = ExportSettings(format="onnx", against_dense=True, latency_repeats=1)
    with pytest.raises(ExportError, match="against_dense and the unmodified model `dense` go together"):
        toolkit.export_model(nn.Linear(2, 2), lambda size: (torch.ones(size, 2),), tmp_path / "x", settings)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("--format torch_export --opset 18", "--opset: is for --format onnx, not for torch_export; leave it out"),
        ("--format plain --opset 18", "--opset: is for --format onnx, not for plain"),
        ("--format plain --static-batch", "--static-batch: is for --format onnx or torch_export, not for plain"),
        ("--format plain --dynamic x:1=n", "--dynamic: is for --format onnx or torch_export"),
        ("--format plain --against-dense", "--against-dense: is for --format onnx or torch_export"),
        ("--format plain --repeats 3", "--repeats: is for --format onnx or torch_export"),
        ("--format onnx --dynamic signal", "--dynamic signal: must be INPUT:AXIS=NAME"),
        ("--format onnx --dynamic x:2=n", "--dynamic x:2=n: the model has no input 'x'; its inputs are: signal [1, 6,"),
        ("--format onnx --against-dense --repeats 0", "--against-dense: is timed, so --repeats must be 1 or more"),
    ],
)
def test_options_that_do_not_go_together(
    words: str, fault: str, run_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run_folder), "--out", str(tmp_path / "x"), *words.split()]) == 2
    printed = capfd.readouterr()
    assert fault in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_shows_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").write_text("mine")
    assert main([str(tmp_path), "--format", "plain", "--out", str(tmp_path / "there")]) == 2
    assert "there: exists already" in capfd.readouterr().err


def test_help_imports_no_torch() -> None:
    lines = ["import sys, toolkit.export", "try: toolkit.export.main(['--help'])", "except SystemExit: pass"]
    code = "\n".join([*lines, "assert 'torch' not in sys.modules"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "plain: a folder with weights and a load.py that needs no toolkit" in " ".join(done.stdout.split())
