"""Finds out whether a model computes the same twice, and which module is the first that does not."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import copied, tensors_in


def why_not_repeatable(model: nn.Module, path: Path) -> str | None:
    """Returns why two passes on the same inputs give different outputs, or None if they give the same.

    A third pass with another random seed tells random numbers from state that a module keeps between passes: only the
    former change the outputs of a model that was restored before.
    """
    with path.taken(model), torch.no_grad():
        first, calls = _watched_run(model, path)
        second, calls_again = _watched_run(model, path)
    difference = _difference(first, second)
    if difference == 0:
        return None
    with path.taken(model), torch.no_grad():
        torch.manual_seed(OTHER_SEED)
        fresh, _ = _watched_run(model, path)
    where = next(
        (
            name
            for (name, outputs), (_, outputs_again) in zip(calls, calls_again, strict=False)
            if _differ(outputs, outputs_again)
        ),
        "",
    )
    place = f"{where} ({type(model.get_submodule(where)).__name__})" if where else "the model"
    if _difference(first, fresh) == 0:
        return f"two passes with the same inputs differ by {difference:.2g}: {place} keeps something from pass to pass"
    return f"two passes with the same inputs differ by {difference:.2g} in eval mode: {place} draws random numbers"


OTHER_SEED = 20261127

Call = tuple[str, list[Tensor]]


def _watched_run(model: nn.Module, path: Path) -> tuple[list[Tensor], list[Call]]:
    """Returns the outputs of the model, and those of every module in the order in which the calls of modules end."""
    calls: list[Call] = []

    def note(name: str, output: Any) -> None:
        calls.append((name, tensors_in(copied(output))))

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(lambda _, __, out, n=name: note(n, out)).remove)
        return path.run(model), calls


def _differ(one: list[Tensor], other: list[Tensor]) -> bool:
    return _difference(one, other) > 0


def _difference(one: list[Tensor], other: list[Tensor]) -> float:
    """Returns the largest difference, infinity where shapes differ; NaN at the same places is no difference."""
    if [part.shape for part in one] != [part.shape for part in other]:
        return float("inf")
    pairs = [(old, new) for old, new in zip(one, other, strict=True) if not torch.equal(old, new)]
    errors = [0.0]
    for old, new in pairs:
        gap = (old.to(torch.complex128) - new.to(torch.complex128)).abs()
        gap = gap[~(old.isnan() & new.isnan())]
        errors.append(float(gap.nan_to_num(float("inf")).max()) if len(gap) else 0.0)
    return max(errors)
