"""Writes and reads programs of torch.export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.exporting.formats.format import FLOAT32_TOLERANCE, OF_GRAPHS, FileFormat, Runner, Subject, Written
from toolkit.exporting.quiet import explained

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.exporting.graph import Inputs


def _write(subject: Subject, path: Path) -> Written:
    import torch  # noqa: PLC0415  # heavy

    captured = subject.trace()
    with explained("torch.export cannot save this model"):
        captured.program.example_inputs = None  # torch would pickle them into the file
        torch.export.save(captured.program, path)
    return Written((path,), captured.inputs, captured.outputs)


def _read(path: Path, _: int) -> Runner:
    """Returns a callable that runs the program; the number of threads is torch's own setting."""
    import torch  # noqa: PLC0415  # heavy

    module = torch.export.load(path).module()

    def run(calls: Sequence[Inputs]) -> list[list[Tensor]]:
        return [list(module(*inputs)) for inputs in calls]

    return run


TORCH_EXPORT = FileFormat(
    name="torch_export",
    suffix=".pt2",
    summary="a program of torch.export",
    packages=(),
    takes=OF_GRAPHS,
    tolerance=FLOAT32_TOLERANCE,
    write=_write,
    read=_read,
    note="torch.export.load reads it. This file holds no pickle, but that function unpickles what another file brings: "
    "load only files that you trust.",
)
