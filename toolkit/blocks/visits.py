"""Watches one forward pass with gradients: the inputs and outputs of every module that may be a block."""

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
from toolkit.hooks.trial import users_code
from toolkit.hooks.untouched import untouched
from toolkit.stand_ins.contract import StandIn
from toolkit.stand_ins.output import OutputStructure


@dataclass
class Visit:
    """Holds the autograd nodes of the inputs and outputs of a module's last call.

    names: parameter names of the module's forward.
    many_names: whether the module stands in several places of the model.
    entry, exit: nodes of the stream before and after the module.
    structure: structure of the output, or None if the stream that comes out differs in shape or type from the one that
        went in; `fault` then says so in words.
    lost: keys of the outputs that a stand-in cannot return.
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
        """Notes the inputs of a call."""
        tensors = tensors_in((args, kwargs))
        self.calls += 1
        self.entry = self.exit = self.structure = None
        self.stream = stream_in((args, kwargs))
        if self.stream is not None:
            self.entry = self.stream.grad_fn
            others = (tensor.grad_fn for tensor in tensors if tensor is not self.stream)
            self.other_inputs = [node for node in others if node is not None and node is not self.entry]

    def leave(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Notes the output of a call."""
        structure_and_stream = OutputStructure.of(output, args, kwargs, self.names)
        if structure_and_stream is None or self.stream is None:
            self.fault = f"returns a {type(output).__name__} that a stand-in cannot return"
            return
        structure, stream = structure_and_stream
        if (stream.shape, stream.dtype) != (self.stream.shape, self.stream.dtype):
            self.fault = f"returns {_described(stream)} where {_described(self.stream)} comes in"
            return
        self.structure, self.exit, self.lost = structure, stream.grad_fn, structure.lost(output)

    def is_residual(self) -> bool:
        """Says whether the module adds its work to its stream through a skip connection."""
        if self.entry is None or self.exit is None:
            return False
        return has_skip_path(self.exit, self.entry, self.other_inputs)


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def watch(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> tuple[dict[str, Visit], list[Tensor]]:
    """Returns the visits of all modules that may be blocks, in execution order, and the output tensors of the model.

    Gradients stay on even where the model turns them off in its forward, and a stream that is detached from the graph
    starts anew at each module.
    """
    visits: dict[str, Visit] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        for module in model.modules():  # backward hooks would put nodes of their own into the graph
            module._backward_hooks.clear()
            module._backward_pre_hooks.clear()
        stack.enter_context(_parameters_in_graph(model))
        for module, names in _possible_blocks(model).items():
            for handle in _watch_module(module, names, visits):
                stack.callback(handle.remove)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_GradientsStayOn())
        stack.enter_context(_inference_mode_ignored())
        stack.enter_context(users_code("the model cannot be followed while it runs with gradients in eval mode"))
        outputs = tensors_in(model(*(_in_graph(tensor) for tensor in example_inputs)))
    return visits, outputs


class _GradientsStayOn(TorchFunctionMode):
    """Ignores torch.no_grad, as a context or a decorator, and torch.set_grad_enabled."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "_set_grad_enabled":
            return None
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _inference_mode_ignored() -> Iterator[None]:
    """Turns torch.inference_mode, as a context or a decorator, into a context that does nothing."""
    kept = torch.inference_mode.__enter__, torch.inference_mode.__exit__
    torch.inference_mode.__enter__ = lambda _: None  # type: ignore[method-assign]
    torch.inference_mode.__exit__ = lambda *_: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.inference_mode.__enter__, torch.inference_mode.__exit__ = kept  # type: ignore[method-assign]


def _possible_blocks(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Returns the submodules with a matrix or convolution outside of stand-ins, and all names of each."""
    names: dict[nn.Module, list[str]] = {}
    of_stand_ins = parameters_of_stand_ins(model)
    for name, module in model.named_modules(remove_duplicate=False):
        parameters = (parameter for parameter in module.parameters() if id(parameter) not in of_stand_ins)
        if name and any(parameter.ndim > 1 for parameter in parameters):
            names.setdefault(module, []).append(name)
    return names


def parameters_of_stand_ins(module: nn.Module) -> set[int]:
    """Returns the ids of the parameters that the stand-ins of dropped blocks hold."""
    stand_ins = (part for part in module.modules() if isinstance(part, StandIn) and part.replaces == "block")
    return {id(parameter) for stand_in in stand_ins for parameter in stand_in.parameters()}


def _watch_module(
    module: nn.Module, names: list[str], visits: dict[str, Visit]
) -> tuple[RemovableHandle, RemovableHandle]:
    argument_names = tuple(inspect.signature(module.forward).parameters)

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = _streams_in_graph(args, kwargs)
        visits.setdefault(names[0], Visit(argument_names, many_names=len(names) > 1)).enter(args, kwargs)
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
    """Gives a floating-point tensor without an autograd node one, as a detached stream needs.

    A view is cloned, because it loses its node when it is changed in place.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.grad_fn is None:
        return _in_graph(value)
    return value.clone() if value._is_view() else value


def _in_graph(tensor: Tensor) -> Tensor:
    """Returns a copy that may be changed in place and, if it is of a floating type, has an autograd node."""
    copy = tensor.detach().clone()
    return copy.requires_grad_().clone() if copy.is_floating_point() else copy


@contextlib.contextmanager
def _parameters_in_graph(model: nn.Module) -> Iterator[None]:
    """Unfreezes all parameters for the length of the `with`.

    Token ids have no gradient, so there the graph starts at the weights of the embedding.
    """
    frozen = [part for part in model.parameters() if part.is_floating_point() and not part.requires_grad]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
