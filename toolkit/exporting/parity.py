"""Compares the outputs of an exported file with those of its model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.base.errors import ExportError
from toolkit.exporting.report import Parity


def compare(
    names: Sequence[str], eager: Sequence[Tensor], exported: Sequence[Tensor], batch_size: int
) -> tuple[Parity, ...]:
    """Returns how far each output of the exported file is from the model's.

    Infinite and undefined numbers must be in the same places in both; they are left out of the difference.

    names: the names of the outputs.
    eager: the outputs of the model in PyTorch.
    exported: the outputs of the exported file.

    Raises:
        ExportError: the outputs differ in number, shape, type or in the places of numbers that are not finite.
    """
    if not eager:
        raise ExportError("the model has no output tensor, so there is nothing to compare")
    if len(eager) != len(exported):
        raise ExportError(f"the exported file has {len(exported)} outputs, the model {len(eager)}")
    return tuple(
        _compare_one(name, ours, theirs, batch_size) for name, ours, theirs in zip(names, eager, exported, strict=True)
    )


def check_tolerance(parity: Sequence[Parity], tolerance: float) -> None:
    """Raises ExportError where an output differs from the model's by more than `tolerance` times its scale."""
    missed = [entry for entry in parity if not entry.relative < tolerance]
    if missed:
        worst = max(missed, key=lambda entry: entry.relative)
        raise ExportError(
            f"the exported file does not compute what the model does: output {worst.output} differs by "
            f"{worst.difference:.3g} at batch size {worst.size}, which is {worst.relative:.2g} of its scale "
            f"(its largest number, {worst.scale:.3g}); the tolerance is {tolerance:g}"
        )


def _compare_one(name: str, eager: Tensor, exported: Tensor, batch_size: int) -> Parity:
    place = f"output {name} of the exported file, at batch size {batch_size},"
    if eager.shape != exported.shape:
        raise ExportError(f"{place} has shape {tuple(exported.shape)}, the model's is {tuple(eager.shape)}")
    if eager.dtype != exported.dtype:
        raise ExportError(f"{place} is {exported.dtype}, the model's is {eager.dtype}")
    expected, actual = (tensor.detach().double().flatten() for tensor in (eager, exported))
    finite = expected.isfinite()
    same = torch.allclose(expected[~finite], actual[~finite], rtol=0.0, atol=0.0, equal_nan=True)
    if not same or not bool(actual[finite].isfinite().all()):
        raise ExportError(f"{place} has infinite or undefined numbers in other places than the model's output")
    expected, actual = expected[finite], actual[finite]
    if eager.numel() and not expected.numel():
        raise ExportError(f"output {name} of the model has no finite number, so there is nothing to compare")
    return Parity(
        output=name,
        batch_size=batch_size,
        difference=float((expected - actual).abs().max()) if expected.numel() else 0.0,
        scale=float(expected.abs().max()) if expected.numel() else 0.0,
    )
