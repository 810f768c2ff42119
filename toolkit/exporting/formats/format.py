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
    """What was written, the main file first. Names of inputs and outputs are those in the file, where it has names."""

    files: tuple[Path, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int | None


@dataclass(frozen=True)
class FileFormat:
    """A format that models are exported to.

    packages: names of the packages that the format needs beside torch.
    write: writes a graph to a path, with an ONNX opset or None; raises ExportError with the exporter's reason where
        the format cannot express the model.
    read: returns the file at a path, ready to run on the CPU with that many threads.
    """

    packages: tuple[str, ...]
    write: Callable[[TracedGraph, Path, int | None], Written]
    read: Callable[[Path, int], Runner]
