"""Loads the model of a cell in a process that did not make it, compares its outputs, and exports it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from toolkit.base.errors import ExportError, UserError
from toolkit.benchmarks.zoo_matrix.cell import Cell, Exported
from toolkit.benchmarks.zoo_matrix.compress import BATCH, OUTPUTS_FILE, RUN_FOLDER
from toolkit.checkpoint.load import load_model
from toolkit.exporting.export import export_model
from toolkit.exporting.formats.registry import FILE_FORMATS
from toolkit.exporting.report import ExportSettings
from toolkit.hooks.tensors import tensors_in
from toolkit.zoo.inputs import example_inputs
from toolkit.zoo.settings import ZooModel


def verify_cell(cell: Cell, model: ZooModel, folder: Path) -> Cell:
    """Returns the cell with its reload error and its exports: ONNX, then torch.export if ONNX cannot express it."""
    try:
        loaded = load_model(folder / RUN_FOLDER)
    except UserError as error:
        return cell.model_copy(update={"reason": f"it cannot be loaded: {error}"})
    difference = _difference(loaded, _inputs(model, BATCH), load_file(folder / OUTPUTS_FILE))
    exports: list[Exported] = []
    for kind in ("onnx", "torch_export"):
        exports.append(_export(loaded, model, kind))
        if exports[-1].relative is not None:
            break
    return cell.model_copy(update={"reload_error": difference, "exports": tuple(exports)})


def _inputs(model: ZooModel, batch_size: int) -> tuple[Tensor, ...]:
    return example_inputs(model.name, model.arguments, batch_size, 0, model.input_size)


def _difference(model: nn.Module, inputs: tuple[Tensor, ...], expected: dict[str, Tensor]) -> float:
    with torch.inference_mode():
        outputs = tensors_in(model(*inputs))
    if [part.shape for part in outputs] != [expected[str(index)].shape for index in range(len(expected))]:
        return float("inf")
    return max(_relative(part, expected[str(index)]) for index, part in enumerate(outputs))


def _relative(actual: Tensor, expected: Tensor) -> float:
    scale = expected.double().square().mean().sqrt().clamp(min=1e-12)
    return float((actual.double() - expected.double()).abs().max() / scale)


def _export(loaded: nn.Module, model: ZooModel, kind: str) -> Exported:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(folder) / f"model{FILE_FORMATS[kind].suffix}"
            report = export_model(loaded, lambda size: _inputs(model, size), path, ExportSettings(format=kind))
        except ExportError as error:
            return Exported(format=kind, relative=None, reason=" ".join(str(error).split())[:300])
    worst = max(entry.relative for entry in report.parity)
    return Exported(
        format=kind, relative=worst, any_batch_size=report.batch_size is None, reason=report.fixed_because or ""
    )
