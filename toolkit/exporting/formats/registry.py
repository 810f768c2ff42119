"""Names every file format; no other module knows them all."""

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
    """Raises ExportError where a package that the format needs is not installed."""
    missing = [name for name in FILE_FORMATS[format_].packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"the format {format_} needs {', '.join(missing)}, which is not installed; run "
            "pip install 'depth-width-toolkit[export]'"
        )


def write(captured: TracedGraph, path: Path, format_: Format, *, opset: int | None) -> Written:
    """Writes a graph to `path` and returns what was written.

    Raises:
        ExportError: the format cannot express the model; the message holds the exporter's reason.
    """
    return FILE_FORMATS[format_].write(captured, path, opset)


def read(path: Path, format_: Format, threads: int) -> Runner:
    """Returns a callable that runs the file on the CPU; only ONNX Runtime uses `threads`, torch has its own setting.

    Raises:
        ExportError: the file cannot be read back; the message holds the reader's reason.
    """
    with explained(f"the exported {format_} file cannot be read back"):
        return FILE_FORMATS[format_].read(path, threads)
