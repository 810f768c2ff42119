"""Says in words why modules that may look like blocks cannot be dropped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class _Passage:
    """Describes the first tensor that went into a module's last call, and the first that came out."""

    calls: int = 0
    entered: tuple[tuple[int, ...], torch.dtype] | None = None
    left: tuple[tuple[int, ...], torch.dtype] | None = None


def why_not_blocks(model: nn.Module, inputs: tuple[Tensor, ...], blocks: Sequence[str]) -> dict[str, str]:
    """Returns the reason against every module that holds several layers, is in no block and holds no block.

    blocks: names of the blocks that `find_blocks` found.
    """
    candidates = list(_candidates(model, blocks, ""))
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    seen = {name: _Passage() for name in candidates}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        stack.enter_context(torch.no_grad())
        for name in candidates:
            for handle in _watched(model.get_submodule(name), seen[name]):
                stack.callback(handle.remove)
        model(*(part.clone() for part in inputs))
    return {name: _reason(seen[name], names[model.get_submodule(name)]) for name in candidates}


def _candidates(module: nn.Module, blocks: Sequence[str], prefix: str) -> Iterator[str]:
    for leaf, child in module.named_children():
        name = f"{prefix}{leaf}"
        if name in blocks or not _has_layers(child):
            continue
        holds_blocks = any(block.startswith(f"{name}.") for block in blocks)
        if holds_blocks or isinstance(child, _CONTAINERS):
            yield from _candidates(child, blocks, f"{name}.")
        else:
            yield name


def _has_layers(module: nn.Module) -> bool:
    """Says whether the module has child modules and a matrix or a convolution."""
    inner = any(True for _ in module.children())
    return inner and any(parameter.ndim > 1 for parameter in module.parameters())


def _watched(module: nn.Module, seen: _Passage) -> Iterator[torch.utils.hooks.RemovableHandle]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.calls += 1
        seen.entered = _described((args, kwargs))

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen.left = _described(output)

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    yield module.register_forward_hook(after)


def _described(value: Any) -> tuple[tuple[int, ...], torch.dtype] | None:
    tensors = tensors_in(value)
    return (tuple(tensors[0].shape), tensors[0].dtype) if tensors else None


def _reason(seen: _Passage, names: list[str]) -> str:
    entered, left = seen.entered or ((), None), seen.left or ((), None)
    reasons = (
        (
            len(names) > 1,
            f"it goes by several names ({', '.join(names[:3])}), so it cannot be dropped under one of them alone",
        ),
        (seen.calls == 0, "it is not run on the example input"),
        (seen.calls > 1, f"it is called {seen.calls} times in one pass"),
        (seen.entered is None, "it takes no tensor"),
        (seen.left is None, "it returns no tensor"),
        (left[0] != entered[0], "it changes the shape of the stream"),
        (left[1] != entered[1], "it changes the type of the stream"),
        (True, "no sum of what it is given and its own work was found in it"),
    )
    return next(reason for holds, reason in reasons if holds)
