"""Writes and reads programs of torch.export."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from toolkit.exporting.formats.format import FileFormat, Runner, Written
from toolkit.exporting.graph import Inputs, TracedGraph
from toolkit.exporting.quiet import explained


def _write(captured: TracedGraph, path: Path, _: int | None) -> Written:
    with explained("torch.export cannot save this model"):
        captured.program.example_inputs = None  # torch would pickle them into the file
        torch.export.save(captured.program, path)
    return Written((path,), captured.inputs, captured.outputs, None)


def _read(path: Path, _: int) -> Runner:
    """Returns a callable that runs the program; the number of threads is torch's own setting."""
    module = torch.export.load(path).module()

    def run(inputs: Inputs) -> list[Tensor]:
        return list(module(*inputs))

    return run


TORCH_EXPORT = FileFormat(packages=(), write=_write, read=_read)
