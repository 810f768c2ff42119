"""A new format is its own file and a line in the registry: nothing else names the formats, and a made-up one works."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.source import read_modules, texts, within
from toolkit import ExportSettings, export_model
from toolkit.base.console import Console
from toolkit.base.errors import ExportError
from toolkit.export import main
from toolkit.exporting.formats.format import FileFormat, Runner, Subject, Written
from toolkit.exporting.formats.registry import FILE_FORMATS, path_of
from toolkit.exporting.words import show_report


def test_nothing_else_names_a_format() -> None:
    names = set(FILE_FORMATS)
    naming = {name for name, module in read_modules().items() if texts(module) & names}
    assert {name for name in naming if within(name, ("toolkit.exporting", "toolkit.export"))} == {
        "toolkit.exporting.formats.onnx",
        "toolkit.exporting.formats.plain.format",
        "toolkit.exporting.formats.torch_export",
    }


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def _write(subject: Subject, path: Path) -> Written:
    assert subject.settings.format == "doubling"
    path.write_text("2")
    return Written((path,), subject.inputs, subject.outputs)


def _read(path: Path, _: int) -> Runner:
    factor = float(path.read_text())

    def run(calls: Sequence[tuple[Tensor, ...]]) -> list[list[Tensor]]:
        return [[inputs[0] * factor] for inputs in calls]

    return run


DOUBLING = FileFormat(
    name="doubling",
    suffix=".two",
    summary="a factor",
    packages=(),
    takes=frozenset(),
    tolerance=1e-7,
    write=_write,
    read=_read,
    note="Take care.",
)


def test_a_made_up_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(FILE_FORMATS, "doubling", DOUBLING)
    settings = ExportSettings(format="doubling")
    path = path_of(tmp_path, settings)
    assert path == tmp_path / "exported.two"
    report = export_model(Net(), lambda size: (torch.ones(size, 3),), path, settings)
    assert [(info.name, info.shape) for info in (*report.inputs, *report.outputs)] == [
        ("x", ("batch", 3)),
        ("output", ("batch", 3)),
    ]
    assert report.settings.tolerance == 1e-7
    show_report(report, path, Console())
    printed = capsys.readouterr().out
    assert "(doubling, any batch size)" in printed and printed.endswith("Take care.\n")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "doubling: a factor" in " ".join(capsys.readouterr().out.split())
    assert main([str(tmp_path), "--format", "doubling", "--opset", "3"]) == 2
    assert "--opset: is for --format onnx, not for doubling" in capsys.readouterr().err


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'onx' is no format; did you mean 'onnx'\? choose one of: onnx, torch_exp"):
        export_model(Net(), lambda size: (torch.ones(size, 3),), tmp_path / "x", ExportSettings(format="onx"))
