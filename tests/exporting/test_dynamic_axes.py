"""Axes that are left open by name: files take other sizes there, and each mistake is one sentence."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from tests.helpers.export_nets import conv_net, images, rows, sentences, tiny_bert
from toolkit import ExportSettings, export_model
from toolkit.base.errors import ExportError
from toolkit.exporting.axes import NamedAxis, named_axis, other_sizes
from toolkit.exporting.report import ExportReport

BOTH = ("input_ids:1=sequence", "attention_mask:1=sequence")


def axes(*texts: str) -> tuple[NamedAxis, ...]:
    return tuple(axis for text in texts if (axis := named_axis(text)) is not None)


def settings(*texts: str, format_: str = "onnx", static: bool = False) -> ExportSettings:
    return ExportSettings(format=format_, dynamic=axes(*texts), static_batch=static)


def longer(batch_size: int, length: int) -> tuple[Tensor, ...]:
    return tuple(part[:, torch.arange(length) % part.shape[1]] for part in sentences(batch_size))


@pytest.mark.parametrize(("format_", "static"), [("onnx", False), ("torch_export", True)])
def test_two_inputs_of_one_length(format_: str, static: bool, tmp_path: Path) -> None:
    model, path = tiny_bert(), tmp_path / "bert"
    report = export_model(model, sentences, path, settings(*BOTH, format_=format_, static=static))
    batch = 1 if static else "batch"
    assert [(info.name, info.shape) for info in report.inputs] == [
        ("input_ids", (batch, "sequence")),
        ("attention_mask", (batch, "sequence")),
    ]
    assert [(entry.batch_size, entry.axes) for entry in report.parity] == [
        (1, {}),
        (1, {"sequence": 7}),
        (2, {}),
        (2, {"sequence": 7}),
    ]
    assert ExportReport.model_validate_json(path.with_name("bert.json").read_bytes()) == report
    if format_ == "onnx":
        session = onnxruntime.InferenceSession(path)
        assert [entry.shape for entry in session.get_inputs()] == [[batch, "sequence"]] * 2
        inputs = longer(1 if static else 3, 13)
        feed = dict(zip(("input_ids", "attention_mask"), (part.numpy() for part in inputs), strict=True))
        found = torch.as_tensor(session.run(None, feed)[0])
        with torch.no_grad():
            assert torch.allclose(found, model(*inputs).logits, atol=1e-5)


def test_axes_of_two_names_of_one_input(tmp_path: Path) -> None:
    report = export_model(conv_net(), images, tmp_path / "x.onnx", settings("image:2=height", "image:3=width"))
    assert report.inputs[0].shape == ("batch", 3, "height", "width")
    assert [entry.axes for entry in report.parity[:3]] == [{}, {"height": 6}, {"width": 6}]


def test_the_batch_is_open_and_called_batch_already(tmp_path: Path) -> None:
    assert axes("image:0=batch") == ()
    report = export_model(conv_net(), images, tmp_path / "x.onnx", settings("image:0=batch"))
    assert report.inputs[0].shape == ("batch", 3, 8, 8)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sequence", "must be INPUT:AXIS=NAME, such as input_ids:1=sequence"),
        ("ids:one=sequence", "must be INPUT:AXIS=NAME"),
        ("ids:-1=sequence", "must be INPUT:AXIS=NAME"),
        ("ids:1=", "must be INPUT:AXIS=NAME"),
        ("ids:1=my-axis", "'my-axis' cannot be a name; use letters, digits and _"),
        ("ids:0=examples", "axis 0 of every input is the batch, is called 'batch' and is open by itself"),
        ("ids:1=batch", "axis 0 of every input is the batch, is called 'batch'"),
    ],
)
def test_texts_that_name_no_axis(text: str, fault: str) -> None:
    with pytest.raises(ExportError, match=fault) as caught:
        named_axis(text)
    assert str(caught.value).startswith(f"--dynamic {text}: ")


@pytest.mark.parametrize(
    ("texts", "fault"),
    [
        (("input_id:1=s",), r"no input 'input_id'; did you mean 'input_ids'\? its inputs are: input_ids \[1, 9\], att"),
        (("input_ids:2=s",), r"input_ids has the shape \[1, 9\], so its axes are 0 \(the batch\) to 1"),
        (("input_ids:1=s", "input_ids:1=t"), "that axis is called 's' already; name it once"),
        (("input_ids:1=s",), r"runs at no other size of s than 9 \(at 7: .*\); name the axes that must change with it"),
    ],
    ids=["input", "axis", "two names", "one input alone"],
)
def test_axes_that_the_model_does_not_have(texts: tuple[str, ...], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=fault):
        export_model(tiny_bert(), sentences, tmp_path / "x.onnx", settings(*texts))
    assert list(tmp_path.iterdir()) == []


class Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sum((1, 2)) + y.sum((1, 2))


def two(batch_size: int) -> tuple[Tensor, ...]:
    return torch.ones(batch_size, 4, 1), torch.ones(batch_size, 3, 2)


def test_sizes_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="size 3, but x:1, of the same name, has 4; axes of different sizes need"):
        export_model(Two(), two, tmp_path / "x.onnx", settings("x:1=n", "y:1=n"))
    with pytest.raises(ExportError, match="that axis has size 1 in the example inputs; it must be at least 2"):
        export_model(Two(), two, tmp_path / "x.onnx", settings("x:2=n"))
    report = export_model(Two(), two, tmp_path / "x.onnx", settings("x:1=n", "y:1=m"))
    assert [info.shape for info in report.inputs] == [("batch", "n", 1), ("batch", "m", 2)]


class OneSize(nn.Module):
    """Its code makes a number of the size, and the tracer writes that of the example into the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x * int(x.shape[1])


class OneBranch(nn.Module):
    """Its code takes a branch at the size of the example, and the tracer sees that branch alone."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) if x.shape[1] == 4 else x


@pytest.mark.parametrize("model", [OneSize(), OneBranch()])
def test_a_size_that_the_code_fixes(model: nn.Module, tmp_path: Path) -> None:
    reason = r"--dynamic x:1=n: the model's code works for the size 4 of that axis alone"
    with pytest.raises(ExportError, match=reason):
        export_model(model, rows, tmp_path / "x.onnx", settings("x:1=n"))


def test_other_sizes_to_try() -> None:
    assert other_sizes(64) == [48, 32, 128, 63, 65]
    assert other_sizes(2) == [4, 3]
    assert other_sizes(3) == [6, 2, 4]
