"""Finds the modules that a model runs, or gives rows to, depending on values: routing, early exits, branches."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import Inputs
from toolkit.hooks.tensors import tensors_in

Shapes = tuple[tuple[int, ...], ...]

NOT_ALWAYS = "is not run on every batch: the values of the model's inputs decide which modules run"

ROUTED = "the values of the rows decide which of them it sees"


def routed_modules(model: nn.Module, batches: Iterable[Inputs]) -> dict[str, str]:
    """Returns, by name, why a module does not see the same shapes in every batch.

    Either it is run on some batches only, or its inputs have different shapes in batches of equal shapes.
    """
    by_shapes: dict[Shapes, dict[str, list[Shapes]]] = {}
    reasons: dict[str, str] = {}
    everywhere: set[str] | None = None
    anywhere: set[str] = set()
    for inputs in batches:
        seen = _input_shapes(model, inputs)
        everywhere = set(seen) if everywhere is None else everywhere & set(seen)
        anywhere |= set(seen)
        expected = by_shapes.setdefault(_shapes(inputs), seen)
        reasons |= {name: ROUTED for name, shapes in seen.items() if name in expected and expected[name] != shapes}
    return reasons | dict.fromkeys(sorted(anywhere - (everywhere or set())), NOT_ALWAYS)


def _input_shapes(model: nn.Module, inputs: Inputs) -> dict[str, list[Shapes]]:
    seen: dict[str, list[Shapes]] = {}

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.setdefault(name, []).append(_shapes((*args, *kwargs.values())))

    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        for name, module in model.named_modules():
            if name and any(True for _ in module.parameters()):
                handle = module.register_forward_pre_hook(
                    lambda _, args, kwargs, n=name: note(n, args, kwargs), with_kwargs=True
                )
                stack.callback(handle.remove)
        model(*inputs)
    return seen


def _shapes(value: Any) -> Shapes:
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))
