"""Names every file format once: the only place that knows them all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.format import FileFormat, Runner, Written
from toolkit.exporting.formats.onnx import ONNX
from toolkit.exporting.formats.torch_export import TORCH_EXPORT
from toolkit.exporting.graph import TracedGraph
from toolkit.exporting.quiet import explained
from toolkit.exporting.report import Format

FILE_FORMATS: dict[Format, FileFormat] = {"onnx": ONNX, "torch_export": TORCH_EXPORT}


def require_packages(format_: Format) -> None:
    """Raises ExportError where something that the format needs is not installed."""
    missing = [name for name in FILE_FORMATS[format_].packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"the format {format_} needs {', '.join(missing)}, not installed here: "
            "pip install 'depth-width-toolkit[export]'"
        )


def write(captured: TracedGraph, path: Path, format_: Format, *, opset: int | None) -> Written:
    """Writes the graph. Raises ExportError with the exporter's reason where the format cannot express the model."""
    return FILE_FORMATS[format_].write(captured, path, opset)


def read(path: Path, format_: Format, threads: int) -> Runner:
    """Returns the file, ready to run on the CPU; `threads` are for ONNX Runtime, torch has its own setting."""
    with explained(f"the exported {format_} file cannot be read back"):
        return FILE_FORMATS[format_].read(path, threads)
