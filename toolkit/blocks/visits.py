"""One forward pass with gradients, watched: what goes into every module that may be a block, and what comes out."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from toolkit.blocks.skip_path import has_skip_path
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import stream_in, tensors_in
from toolkit.hooks.untouched import untouched
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.output import OutputStructure


@dataclass
class Visit:
    """What went into a module's last call and came out: nodes of the autograd graph.

    names: what the module calls its positional arguments. structure: None unless the stream that comes out has the
    shape and type of the stream that went in; then `fault` says in words what came out. lost: entries of the output
    that a stand-in has nothing for.
    """

    names: tuple[str, ...] = ()
    many_names: bool = False
    calls: int = 0
    entry: Node | None = None
    other_inputs: list[Node] = field(default_factory=list)
    stream: Tensor | None = None
    exit: Node | None = None
    structure: OutputStructure | None = None
    lost: list[int | str] = field(default_factory=list)
    fault: str = ""

    def enter(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        tensors = tensors_in((args, kwargs))
        self.calls += 1
        self.entry = self.exit = self.structure = None
        self.stream = stream_in((args, kwargs))
        if self.stream is not None:
            self.entry = self.stream.grad_fn
            others = (tensor.grad_fn for tensor in tensors if tensor is not self.stream)
            self.other_inputs = [node for node in others if node is not None and node is not self.entry]

    def leave(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        found = OutputStructure.of(output, args, kwargs, self.names)
        if found is None or self.stream is None:
            self.fault = f"returns a {type(output).__name__} that a stand-in cannot return"
            return
        structure, stream = found
        if (stream.shape, stream.dtype) != (self.stream.shape, self.stream.dtype):
            self.fault = f"returns {_described(stream)} where {_described(self.stream)} comes in"
            return
        self.structure, self.exit, self.lost = structure, stream.grad_fn, structure.lost(output)

    def is_residual(self) -> bool:
        if self.entry is None or self.exit is None:
            return False
        return has_skip_path(self.exit, self.entry, self.other_inputs)


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def watch(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[dict[str, Visit], list[Tensor]]:
    """Returns the visits of all modules that may be blocks, in execution order, and the tensors of the outputs.

    Gradients stay on where the model switches them off in its own forward, and a stream that is cut off the graph
    begins anew at each module.
    """
    visits: dict[str, Visit] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        stack.enter_context(_parameters_in_graph(model))
        for module, names in _possible_blocks(model).items():
            for handle in _watch_module(module, names, visits):
                stack.callback(handle.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_GradientsStayOn())
        outputs = tensors_in(model(*(_in_graph(tensor) for tensor in example_inputs)))
    return visits, outputs


class _GradientsStayOn(TorchFunctionMode):
    """Whatever switches gradients off does nothing: torch.no_grad as a context or a decorator, set_grad_enabled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            return None
        return func(*args, **(kwargs or {}))


def _possible_blocks(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Submodules with a matrix or convolution that is not a stand-in's, and all the names that each goes by."""
    names: dict[nn.Module, list[str]] = {}
    of_stand_ins = parameters_of_stand_ins(model)
    for name, module in model.named_modules(remove_duplicate=False):
        own = (parameter for parameter in module.parameters() if id(parameter) not in of_stand_ins)
        if name and any(parameter.ndim > 1 for parameter in own):
            names.setdefault(module, []).append(name)
    return names


def parameters_of_stand_ins(module: nn.Module) -> set[int]:
    """Returns the ids of the parameters that stand-ins hold."""
    held = (part for part in module.modules() if isinstance(part, StandIn))
    return {id(parameter) for part in held for parameter in part.parameters()}


def _watch_module(
    module: nn.Module, names: list[str], visits: dict[str, Visit]
) -> tuple[RemovableHandle, RemovableHandle]:
    called = tuple(inspect.signature(module.forward).parameters)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = _streams_in_graph(args, kwargs)
        visits.setdefault(names[0], Visit(called, many_names=len(names) > 1)).enter(args, kwargs)
        return args, kwargs

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        visits[names[0]].leave(args, kwargs, output)

    return (
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True),
    )


def _streams_in_graph(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(_with_node, args)), {name: _with_node(value) for name, value in kwargs.items()}


def _with_node(value: Any) -> Any:
    """A floating-point tensor without a node, as a detached stream is, gets one; so does a view, which loses its node
    when it is changed in place."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.grad_fn is None:
        return _in_graph(value)
    return value.clone() if value._is_view() else value


def _in_graph(tensor: Tensor) -> Tensor:
    """A copy that has a node in the autograd graph and may be changed in place, if it is of a type that can."""
    copy = tensor.detach().clone()
    return copy.requires_grad_().clone() if copy.is_floating_point() else copy


@contextlib.contextmanager
def _parameters_in_graph(model: nn.Module) -> Iterator[None]:
    """Frozen parameters take part too: token ids have no gradient, so the graph starts at the embedding's weights."""
    frozen = [part for part in model.parameters() if part.is_floating_point() and not part.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
