"""Finds out whether a model computes the same twice, and which module is the first that does not."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import copied, tensors_in

OTHER_SEED = 20261127


def why_not_repeatable(model: nn.Module, path: Path) -> str | None:
    """Returns why two passes on the same inputs give different outputs, or None if they give the same.

    A third pass with other random seeds tells random numbers from state that a module keeps between passes: only the
    former change the outputs of a model that was restored before.
    """
    with path.taken(model), torch.no_grad():
        first, second = path.run(model), path.run(model)
    difference = _difference(first, second)
    if difference == 0:
        return None
    with path.taken(model), torch.no_grad():
        torch.manual_seed(OTHER_SEED)
        np.random.seed(OTHER_SEED)  # models draw from the global generator
        random.seed(OTHER_SEED)
        fresh = path.run(model)
    where = _innermost_that_differs(model, path)
    place = f"{where} ({type(model.get_submodule(where)).__name__})" if where else "the model"
    if _difference(first, fresh) == 0:
        return f"two passes with the same inputs differ by {difference:.2g}: {place} keeps something from pass to pass"
    return f"two passes with the same inputs differ by {difference:.2g} in eval mode: {place} draws random numbers"


Call = tuple[list[Tensor], list[Tensor]]  # the tensors of the inputs and of the outputs


def _innermost_that_differs(model: nn.Module, path: Path) -> str:
    """Returns the first module whose call ends with other outputs for the same inputs; "" where the model is the first.

    A module that only reads what another one has changed differs too, but has other inputs.
    """
    with path.taken(model), torch.no_grad():
        calls, calls_again = _watched_run(model, path), _watched_run(model, path)
    for place, (inputs, outputs) in calls.items():
        if place in calls_again:
            inputs_again, outputs_again = calls_again[place]
            if not _differ(inputs, inputs_again) and _differ(outputs, outputs_again):
                return place[0]
    return ""


def _watched_run(model: nn.Module, path: Path) -> dict[tuple[str, int], Call]:
    """Returns the calls by module and number, in the order in which they end."""
    calls: dict[tuple[str, int], Call] = {}
    begun: dict[str, list[list[Tensor]]] = {}
    numbers: dict[str, int] = {}

    def begin(name: str, given: Any) -> None:
        begun.setdefault(name, []).append(tensors_in(copied(given)))  # a module may change its inputs in place

    def end(name: str, output: Any) -> None:
        calls[name, numbers.setdefault(name, 0)] = begun[name].pop(), tensors_in(copied(output))
        numbers[name] += 1

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                before = module.register_forward_pre_hook(
                    lambda _, args, kwargs, n=name: begin(n, (args, kwargs)), with_kwargs=True
                )
                stack.callback(before.remove)
                stack.callback(module.register_forward_hook(lambda _, __, out, n=name: end(n, out)).remove)
        path.run(model)
    return calls


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
