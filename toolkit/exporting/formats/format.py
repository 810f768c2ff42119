"""States what a file format must offer: writing a traced model, and reading the file back as a plain callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from toolkit.exporting.graph import Inputs, TracedGraph
from toolkit.exporting.report import TensorInfo

Runner = Callable[[Inputs], list[Tensor]]


@dataclass(frozen=True)
class Written:
    """Describes what was written.

    files: the main file first.
    inputs, outputs: described by their names in the file, where the format has names.
    opset: the ONNX opset; None for other formats.
    """

    files: tuple[Path, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int | None


@dataclass(frozen=True)
class FileFormat:
    """Holds what a format offers.

    packages: names of the packages that the format needs beside torch.
    write: writes a graph to a path, with an ONNX opset or None; raises ExportError with the exporter's reason where
        the format cannot express the model.
    read: returns a callable that runs the file at a path on the CPU, with a number of threads.
    """

    packages: tuple[str, ...]
    write: Callable[[TracedGraph, Path, int | None], Written]
    read: Callable[[Path, int], Runner]
