"""Export to both formats, for real: files are read back by ONNX Runtime and torch.export, and compared."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.checkpoint_net import compressed
from tests.helpers.export_nets import (
    Branching,
    ConvNet,
    Eigenvalues,
    Encoder,
    FixedBatch,
    Linear,
    Nested,
    TwoFaced,
    conv_net,
    images,
    rows,
    sentences,
    tiny_bert,
    tokens,
)
from toolkit.base.errors import ExportError
from toolkit.exporting.export import export_model
from toolkit.exporting.formats import onnx as onnx_format
from toolkit.exporting.formats.registry import FILE_FORMATS
from toolkit.exporting.report import ExportReport, ExportSettings
from toolkit.hooks.tensors import tensors_in

FORMATS = ("onnx", "torch_export")
InputsOf = Callable[[int], tuple[Tensor, ...]]


def run_onnx(path: Path, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), inputs, strict=True)}
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, map(torch.as_tensor, session.run(None, feed)), strict=True))


def run_file(path: Path, format_: str, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    if format_ == "onnx":
        return list(run_onnx(path, inputs).values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's name
        return list(torch.export.load(path).module()(*inputs))


def signal_and_ids(batch_size: int) -> tuple[Tensor, ...]:
    signal = torch.linspace(-2, 3, batch_size * 21).sin().reshape(batch_size, 3, 7)
    return signal, torch.arange(batch_size * 7).reshape(batch_size, 7) % 5


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("build", "inputs_of"),
    [(conv_net, images), (tiny_bert, sentences), (compressed, signal_and_ids), (Encoder, tokens)],
    ids=["conv", "bert", "own", "attention"],
)
def test_any_batch_size(
    build: Callable[[], nn.Module],
    inputs_of: InputsOf,
    format_: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model, path = build().eval(), tmp_path / "new" / "model.bin"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = export_model(model, inputs_of, path, ExportSettings(format=format_), weights_sha256="abc")
    assert capfd.readouterr() == ("", "")
    assert (report.batch_size, report.fixed_because) == (None, None)
    assert sorted({entry.batch_size for entry in report.parity}) == [1, 2]
    assert len(report.parity) == 2 * len(report.outputs)
    assert all(entry.scale > 0 and entry.relative < 1e-5 for entry in report.parity)
    assert all(info.shape[0] == "batch" for info in (*report.inputs, *report.outputs))
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.bin", "model.bin.json"]
    assert ExportReport.model_validate_json((tmp_path / "new" / "model.bin.json").read_bytes()) == report
    assert report.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report.weights_sha256 == "abc"
    assert (report.opset is not None) == (format_ == "onnx")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    found = run_file(path, format_, inputs_of(5))  # a batch that the exporter never saw
    with torch.no_grad():
        wanted = tensors_in(model(*inputs_of(5)))
    assert len(found) == len(wanted) > 0
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))


def test_names_opset_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "bert.onnx"
    report = export_model(tiny_bert(), sentences, path, ExportSettings(format="onnx", opset=18, static_batch=True))
    assert [(info.name, info.dtype) for info in report.inputs] == [("input_ids", "int64"), ("attention_mask", "int64")]
    assert [(info.name, info.shape) for info in report.outputs] == [("logits", (1, 3))]
    assert list(run_onnx(path, sentences(1))) == ["logits"]
    assert report.opset == onnx.load(path).opset_import[0].version == 18
    assert {"torch", "onnx", "onnxscript", "onnxruntime"} <= set(report.environment.packages)


def test_reading_torch_export_unpickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = tiny_bert(), tmp_path / "bert.pt2"
    export_model(model, sentences, path, ExportSettings(format="torch_export"))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for place, name in ((torch, "load"), (pickle, "Unpickler"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(place, name, refuse)
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        assert torch.allclose(loaded(*sentences(3))[0], model(*sentences(3)).logits, atol=1e-6)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_model_that_fixes_the_batch_size_says_so(format_: str, tmp_path: Path) -> None:
    model = FixedBatch().eval()
    report = export_model(model, rows, tmp_path / "fixed", ExportSettings(format=format_, batch_size=3))
    assert report.batch_size == 3
    assert report.fixed_because is not None and "constant (3)" in report.fixed_because
    assert [entry.batch_size for entry in report.parity] == [1, 3]
    assert report.inputs[0].shape == report.outputs[0].shape == (3, 4)
    if format_ == "onnx":
        found = run_onnx(tmp_path / "fixed", rows(3))
        assert torch.allclose(found["output"], model(*rows(3)).detach(), atol=1e-6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fixed", "fixed.json"]


def test_a_fixed_batch_size_on_demand(tmp_path: Path) -> None:
    settings = ExportSettings(format="onnx", static_batch=True, latency_repeats=3, threads=1)
    report = export_model(conv_net(), images, tmp_path / "one.onnx", settings)
    assert (report.batch_size, report.fixed_because) == (1, None)
    assert [entry.batch_size for entry in report.parity] == [1, 2]
    assert run_onnx(tmp_path / "one.onnx", images(1))["output"].shape == (1, 5)
    with pytest.raises(Exception, match="Expected: 1"):
        run_onnx(tmp_path / "one.onnx", images(2))
    assert [(entry.batch_size, entry.threads) for entry in report.latency] == [(1, 1), (2, 1)]
    assert all(len(entry.samples_s) == len(entry.eager_samples_s) == 3 and entry.ratio > 0 for entry in report.latency)


def test_outputs_of_any_nesting(tmp_path: Path) -> None:
    """Names are the model's own, with underscores added where the graph has a value of that name inside."""
    path = tmp_path / "nested.onnx"
    report = export_model(Nested().eval(), rows, path, ExportSettings(format="onnx"))
    assert [entry.output for entry in report.parity][:5] == ["linear", "parts_0", "parts_1_0", "max_id", "ones"]
    names = [info.name for info in report.outputs]
    assert [name.rstrip("_") for name in names] == ["linear", "parts_0", "parts_1_0", "max_id", "ones"]
    assert report.inputs[0].name.rstrip("_") == "add"
    graph = onnx.load(path).graph
    written = [name for node in graph.node for name in node.output] + [entry.name for entry in graph.input]
    assert len(set(written)) == len(written), "a name stands for two values"
    assert report.outputs[3].dtype == "int64" and report.outputs[4].shape == (3,)
    assert list(run_onnx(path, rows(4))) == names


@pytest.mark.parametrize(
    ("model", "static", "reason"),
    [
        (Eigenvalues(), True, r"ONNX cannot express this model: .*No ONNX function found for .*eigh"),
        (Branching(), False, r"the model cannot be captured as a graph: .*data-dependent"),
        (
            TwoFaced(),
            False,
            r"does not compute what the model does: output output differs by 0.\d+ .* is 0.0\d+ of its",
        ),
    ],
    ids=["operator", "branch", "parity"],
)
def test_what_cannot_be_exported_leaves_nothing(
    model: nn.Module, static: bool, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=reason) as caught:
        export_model(model.eval(), rows, tmp_path / "x.onnx", ExportSettings(format="onnx", static_batch=static))
    assert len(str(caught.value)) < 800 and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_torch_export_takes_what_onnx_does_not(tmp_path: Path) -> None:
    report = export_model(Eigenvalues().eval(), rows, tmp_path / "x.pt2", ExportSettings(format="torch_export"))
    assert report.parity[0].relative < 1e-5


def test_an_opset_that_cannot_be_had(tmp_path: Path) -> None:
    """torch writes another one then, and only logs it."""
    settings = ExportSettings(format="onnx", opset=99, static_batch=True)
    with pytest.raises(ExportError, match="opset 99"):
        export_model(Linear().eval(), rows, tmp_path / "x.onnx", settings)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ExportError, match="--opset: is for --format onnx, not for torch_export; leave it out"):
        export_model(Linear(), rows, tmp_path / "x", ExportSettings(format="torch_export", opset=18))


def test_the_model_and_the_fast_path_are_left_as_they_were(tmp_path: Path) -> None:
    model = ConvNet().train()
    model.blocks[1].eval()
    export_model(model, images, tmp_path / "x.pt2", ExportSettings(format="torch_export"))
    assert [block.training for block in model.blocks] == [True, False, True]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert int(model.blocks[0].bn.num_batches_tracked) == 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_weights_beside_a_file_that_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_format, "ONE_FILE_BYTES", 100)
    report = export_model(conv_net(), images, tmp_path / "big.onnx", ExportSettings(format="onnx"))
    assert [file.name for file in report.files] == ["big.onnx", "big.onnx.data"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data", "big.onnx.json"]
    assert run_onnx(tmp_path / "big.onnx", images(3))["output"].shape == (3, 5)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILE_FORMATS, "onnx", replace(FILE_FORMATS["onnx"], packages=("onnx", "no_such_package")))
    with pytest.raises(ExportError, match=r"needs no_such_package.*pip install 'depth-width-toolkit\[export\]'"):
        export_model(Linear(), rows, tmp_path / "x.onnx", ExportSettings(format="onnx"))


def test_places_and_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    settings = ExportSettings(format="torch_export")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ExportError, match="exists already"):
        export_model(Linear(), rows, tmp_path / "there", settings)
    with pytest.raises(ExportError, match="cannot be written"):
        export_model(Linear().eval(), rows, tmp_path / "there" / "x.pt2", settings)
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(ExportError, match=r"must be the batch size, 1; the shapes are \[\(2, 4\)\]"):
        export_model(Linear(), lambda _: rows(2), tmp_path / "x", settings)
    with pytest.raises(ExportError, match=r"does not run on its example inputs of batch size 1: .*shapes cannot be"):
        export_model(Linear(), tokens, tmp_path / "x", settings)
