"""States what an export format offers. Nothing here imports torch.

A new format is a file, or a folder, beside this one, and its line in `registry.py`; nothing else names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.exporting.report import ExportSettings, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from toolkit.exporting.graph import Inputs, TracedGraph
    from toolkit.exporting.saved import SavedModel

# Takes the inputs of several calls, because to run some files takes a process of its own, and returns their outputs.
Runner = Callable[[Sequence["Inputs"]], "list[list[Tensor]]"]


@dataclass(frozen=True)
class Subject:
    """Holds what a format is to write.

    model: on the CPU; not to be changed.
    settings: those of the export.
    inputs, outputs: of the model, for any batch size.
    trace: traces the model as one graph, for the sizes that the file must take; raises ExportError.
    saved: the saved model that `model` was loaded from; None if it was given as a module alone.
    """

    model: nn.Module
    settings: ExportSettings
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    trace: Callable[[], TracedGraph]
    saved: SavedModel | None


@dataclass(frozen=True)
class Written:
    """Describes what was written.

    files: the main file, or the folder that holds all files, first.
    inputs, outputs: described by their names in the file, where the format has names.
    opset: the ONNX opset; None for other formats.
    """

    files: tuple[Path, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    opset: int | None = None


@dataclass(frozen=True)
class FileFormat:
    """Holds what a format offers.

    name: what `--format` and the settings call it.
    suffix: what the name of an exported file ends with, such as `.onnx`.
    summary: what it is, in a few words.
    packages: names of the packages that the format needs beside torch.
    takes: the settings beyond `format`, `batch_size` and `tolerance` that the format heeds; others are refused.
    tolerance: the largest difference from the model, as a share of an output's scale, if the settings do not say.
    write: writes a model to a path; raises ExportError with the exporter's reason where the format cannot express it.
    read: returns a callable that runs the file at a path on the CPU, with a number of threads.
    note: what the user must know of the file; empty if there is nothing.
    """

    name: str
    suffix: str
    summary: str
    packages: tuple[str, ...]
    takes: frozenset[str]
    tolerance: float
    write: Callable[[Subject, Path], Written]
    read: Callable[[Path, int], Runner]
    note: str = ""


# What a format takes that writes the traced graph and can be timed.
OF_GRAPHS = frozenset({"static_batch", "dynamic", "threads", "latency_repeats", "against_dense", "constant_options"})

FLOAT32_TOLERANCE = 1e-4
