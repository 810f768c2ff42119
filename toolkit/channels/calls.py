"""Records the calls of one forward pass, and finds modules that use the weights of layers without calling them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.channels.changes import cloned
from toolkit.channels.layers import broad_dims, is_grouped, is_leaf, mixes_channels, own_parameters
from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import tensors_in, unlike


@dataclass
class Call:
    """Holds one recorded call of a module.

    inputs: all tensors among the arguments.
    output: what the module returned.
    """

    inputs: list[Tensor]
    output: Any


def record_calls(model: nn.Module, forward: Callable[[], object]) -> dict[str, list[Call]]:
    """Returns all calls that `forward` makes of modules with parameters and of norms, by name, in execution order."""
    calls: dict[str, list[Call]] = {}

    def before(name: str) -> Callable[..., None]:
        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            inputs = [part.detach().clone() for part in tensors_in((*args, *kwargs.values()))]
            calls.setdefault(name, []).append(Call(inputs, None))

        return note

    def after(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            calls[name][-1].output = cloned(output)

        return note

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name and (is_leaf(module) or any(True for _ in module.parameters())):
                stack.callback(module.register_forward_pre_hook(before(name), with_kwargs=True).remove)
                stack.callback(module.register_forward_hook(after(name)).remove)
        forward()
    return calls


def opaque_modules(model: nn.Module, calls: Mapping[str, list[Call]], path: Path) -> set[str]:
    """Returns the called modules that use weights of layers below them without calling these layers.

    A module that multiplies by a matrix of its own is opaque too. Of nested opaque modules only the outermost is
    returned.
    """
    modules = dict(model.named_modules())
    used = used_parameters(model, path)
    opaque: set[str] = set()
    for name, module in modules.items():
        heavy = [part for part in own_parameters(module).values() if broad_dims(part) > 1 and id(part) in used]
        if not heavy or (name in calls and mixes_channels(module)) or (name in calls and is_grouped(module)):
            continue
        if name in calls and not is_leaf(module):
            continue  # a table of its own beside layers that it calls: see `tensor_slots`
        top = name
        while top and top not in calls:
            top = top.rpartition(".")[0]
        if top:
            opaque.add(top)
    opaque |= {name for name in calls if isinstance(modules[name], nn.MultiheadAttention)}
    return {name for name in opaque if not any(name.startswith(f"{top}.") for top in opaque)}


def keeps_its_shape(module: nn.Module, calls: list[Call]) -> bool:
    """Says whether a module is a leaf that does not mix channels and keeps the shape of its input at every call.

    A grouped convolution counts whatever its shapes, because each group has its own inputs and outputs.
    """
    if mixes_channels(module) or not is_leaf(module):
        return False
    return is_grouped(module) or all(
        len(call.inputs) >= 1 and isinstance(call.output, Tensor) and call.output.shape == call.inputs[0].shape
        for call in calls
    )


def dims_of_parameters(leaf: nn.Module, call: Call) -> list[int]:
    """Returns the dimensions of a leaf's input along which its parameters lie, by running the leaf with changed ones.

    A change of a parameter's first number shows at the first place of such a dimension and nowhere else along it. The
    list is empty where this is not seen, or where the leaf does not run on its input alone.
    """
    found: set[int] = set()
    for parameter in (part for part in leaf.parameters(recurse=False) if part.is_floating_point() and part.numel() > 1):
        old = parameter.detach().clone()
        try:
            before = leaf(call.inputs[0].clone())
            parameter[(0,) * parameter.ndim] += 1.0
            moved = unlike(leaf(call.inputs[0].clone()), before)
        except Exception:  # the user's code may raise anything
            return []
        finally:
            parameter.copy_(old)
        places = [(dim, moved.transpose(0, dim).flatten(1).any(1)) for dim in range(1, moved.ndim)]
        alone = (dim for dim, mask in places if bool(mask[0]) and int(mask.sum()) == 1)
        found |= {dim for dim in alone if moved.shape[dim] in parameter.shape}
    return sorted(found)


def used_parameters(model: nn.Module, path: Path) -> set[int]:
    """Returns the ids of the parameters that the outputs of a pass depend on, according to the autograd graph.

    The pass draws the random numbers of every other pass of `path`: a block that training skips at random is skipped.
    """
    frozen = [part for part in model.parameters() if part.is_floating_point() and not part.requires_grad]
    try:
        for part in frozen:
            part.requires_grad_(True)
        with torch.enable_grad():
            outputs = path.run(model)
        waiting = [part.grad_fn for part in outputs if part.grad_fn is not None]
    finally:
        for part in frozen:
            part.requires_grad_(False)
    seen, used = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            used.add(id(node.variable))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return used
