"""Whether an exported file computes what its model does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from toolkit.base.errors import ExportError
from toolkit.exporting.report import Parity


def compare(
    names: Sequence[str], eager: Sequence[Tensor], exported: Sequence[Tensor], batch_size: int
) -> tuple[Parity, ...]:
    """One entry per output. Numbers that are not finite must be in the same places, and are otherwise left out.

    Raises:
        ExportError: the outputs are others in number, shape or type, or not finite where the model's are.
    """
    if not eager:
        raise ExportError("the model has no output tensor, so that nothing could be compared")
    if len(eager) != len(exported):
        raise ExportError(f"the exported file has {len(exported)} outputs, the model {len(eager)}")
    return tuple(
        _compare_one(name, one, other, batch_size) for name, one, other in zip(names, eager, exported, strict=True)
    )


def check_tolerance(parity: Sequence[Parity], tolerance: float) -> None:
    """Raises ExportError where an output is further from the model's than `tolerance` times its scale."""
    missed = [entry for entry in parity if not entry.relative < tolerance]
    if missed:
        worst = max(missed, key=lambda entry: entry.relative)
        raise ExportError(
            f"the exported file does not compute what the model does: output {worst.output} differs by "
            f"{worst.difference:.3g} at batch size {worst.batch_size}, which is {worst.relative:.2g} of its scale "
            f"(its largest number, {worst.scale:.3g}); the tolerance is {tolerance:g}"
        )


def _compare_one(name: str, eager: Tensor, exported: Tensor, batch_size: int) -> Parity:
    place = f"output {name} of the exported file, at batch size {batch_size},"
    if eager.shape != exported.shape:
        raise ExportError(f"{place} has shape {tuple(exported.shape)}, the model's is {tuple(eager.shape)}")
    if eager.dtype != exported.dtype:
        raise ExportError(f"{place} is {exported.dtype}, the model's is {eager.dtype}")
    wanted, found = (tensor.detach().double().flatten() for tensor in (eager, exported))
    finite = wanted.isfinite()
    same = torch.allclose(wanted[~finite], found[~finite], rtol=0.0, atol=0.0, equal_nan=True)
    if not same or not bool(found[finite].isfinite().all()):
        raise ExportError(f"{place} has infinite or undefined numbers in other places than the model's")
    wanted, found = wanted[finite], found[finite]
    if eager.numel() and not wanted.numel():
        raise ExportError(f"output {name} of the model has no finite number, so that nothing could be compared")
    return Parity(
        output=name,
        batch_size=batch_size,
        difference=float((wanted - found).abs().max()) if wanted.numel() else 0.0,
        scale=float(wanted.abs().max()) if wanted.numel() else 0.0,
    )
