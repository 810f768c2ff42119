"""Finds the modules that a model runs, or gives rows to, depending on values: routing, early exits, branches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import Inputs
from toolkit.hooks.tensors import stream_in, tensors_in

Shapes = tuple[tuple[int, ...], ...]

NOT_ALWAYS = "is not run on every batch: the values of the model's inputs decide which modules run"

MOST_ALONE = 8  # examples of which each is given to the model alone, to see whether its values decide what runs

ROUTED = "the values of the rows decide which of them it sees"


def routed_modules(model: nn.Module, batches: Iterable[Inputs], reference: nn.Module | None = None) -> dict[str, str]:
    """Returns, by name, why a module does not see the same shapes in every batch.

    Either it is run on some batches only, or its inputs have different shapes in batches of equal shapes.

    reference: a model that the model came from; a module that gets another number of rows in it is routed, too.
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
        if reference is not None:
            in_reference = _input_shapes(reference, inputs)
            common = seen.keys() & in_reference.keys()
            reasons |= {name: ROUTED for name in sorted(common) if _rows(seen[name]) != _rows(in_reference[name])}
    return reasons | dict.fromkeys(sorted(anywhere - (everywhere or set())), NOT_ALWAYS)


def each_alone(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Yields a batch in parts of `size` examples, which show routing that one pass of the whole batch hides."""
    for start in range(0, len(inputs[0]) - size + 1, size):
        yield tuple(part[start : start + size] for part in inputs)


def _input_shapes(model: nn.Module, inputs: Inputs) -> dict[str, list[Shapes]]:
    seen: dict[str, list[Shapes]] = {}

    def note(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stream = stream_in((args, kwargs))  # masks beside it may be left out where nothing is padded
        seen.setdefault(name, []).append(_shapes((args, kwargs) if stream is None else stream))

    with evaluating(model), torch.no_grad(), ExitStack() as stack:
        for name, module in model.named_modules():
            if name and any(True for _ in module.parameters()):
                handle = module.register_forward_pre_hook(
                    lambda _, args, kwargs, n=name: note(n, args, kwargs), with_kwargs=True
                )
                stack.callback(handle.remove)
        model(*inputs)
    return seen


def _rows(calls: list[Shapes]) -> list[int]:
    """Returns the first size of the first tensor of every call."""
    return [shape[0] for shapes in calls for shape in shapes[:1] if shape]


def _shapes(value: Any) -> Shapes:
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))
