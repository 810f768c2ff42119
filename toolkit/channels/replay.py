"""How far a change of a layer's outputs reaches before another layer reads it.

Every layer that mixes channels is frozen: it hands out what it handed out before, whatever it reads. So a change of
one layer's outputs travels through activations, norms, additions, attention, reshaping ... and ends at the layers that
read it. Norms are replaced by a shift (y + x' - x), so that their statistics do not spread a change over all channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.channels.layers import (
    broad_dims,
    input_dim,
    is_grouped,
    is_leaf,
    mixes_channels,
    output_dim,
    own_parameters,
)
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import tensors_in

Mask = Tensor  # bool [channels]

_FAR = 50.0


@dataclass(frozen=True)
class Source:
    """Where a change begins: the outputs of a layer, or a dimension of a module's own parameter or buffer."""

    module: str
    tensor: str = ""
    dim: int = 0


@dataclass
class Response:
    """`read`: changed inputs of each layer that mixes channels. `through`: of each leaf, along the dimensions of its
    input that are as long as one of its parameters.

    `opaque`: modules that read a change and compute with layers that they do not call.
    """

    outputs_changed: bool = False
    read: dict[str, Mask] = field(default_factory=dict)
    through: dict[str, dict[int, Mask]] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)


@dataclass
class _Call:
    inputs: list[Tensor]
    output: Any


class Replay:
    """One forward pass of `model`, kept, to be run again with changes. Not for training; the model is left as it was.

    `layers` mix channels and are called once, in execution order; `leaves` are other leaf modules with parameters
    that keep the shape of their input; `opaque` modules compute with weights of layers that they do not call.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.model, self.inputs = model, inputs
        self._modules = dict(model.named_modules())
        calls = self._watch()
        self.order = list(calls)
        self.opaque = self._find_opaque(calls)
        inside = {name for name in calls for top in self.opaque if name.startswith(f"{top}.")}
        called = [name for name in calls if name not in inside and name not in self.opaque]
        self._frozen = [name for name in called if mixes_channels(self._modules[name])] + sorted(self.opaque)
        self.layers = [name for name in self._frozen if name not in self.opaque and len(calls[name]) == 1]
        self.leaves = [name for name in called if self._is_leaf(name, calls[name])]
        kept = {*self._frozen, *self.leaves}
        self._calls = {name: found for name, found in calls.items() if name in kept}
        self._response, self._changes, self._sign = Response(), dict[Source, Mask](), 1.0
        self._numbers: dict[str, int] = {}
        self._outputs: list[Tensor] = []

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Every frozen layer and every leaf has a forward of ours, as an attribute, before that of its class."""
        ours = {name: self._freeze(name) for name in self._frozen} | {name: self._shift(name) for name in self.leaves}
        try:
            for name, forward in ours.items():
                self._modules[name].forward = forward
            yield
        finally:
            for name in ours:
                if "forward" in vars(self._modules[name]):
                    del self._modules[name].forward

    def respond(self, changes: Mapping[Source, Mask]) -> Response:
        """What changes when the chosen channels of every source do, to either side; only inside `replaying`."""
        self._response, self._changes = Response(), dict(changes)
        for self._sign in (1.0, -1.0):
            self._numbers = dict.fromkeys(self._frozen, 0)
            with ExitStack() as stack:
                for source, chosen in changes.items():
                    if source.tensor:
                        stack.enter_context(self._tensor_changed(source, chosen))
                outputs = self._forward()
            if not changes:
                self._outputs = outputs  # of the unchanged pass
            self._response.outputs_changed |= _differ(outputs, self._outputs)
        return self._response

    def _watch(self) -> dict[str, list[_Call]]:
        """Inputs and outputs of all calls of the modules that have parameters, in execution order."""
        calls: dict[str, list[_Call]] = {}

        def before(name: str) -> Callable[..., None]:
            def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                given = [part.detach().clone() for part in tensors_in((*args, *kwargs.values()))]
                calls.setdefault(name, []).append(_Call(given, None))

            return note

        def after(name: str) -> Callable[..., None]:
            def note(_: nn.Module, __: Any, output: Any) -> None:
                calls[name][-1].output = _cloned(output)

            return note

        with ExitStack() as stack:
            for name, module in self._modules.items():
                if name and any(True for _ in module.parameters()):
                    stack.callback(module.register_forward_pre_hook(before(name), with_kwargs=True).remove)
                    stack.callback(module.register_forward_hook(after(name)).remove)
            self._forward()
        return calls

    def _forward(self) -> list[Tensor]:
        return [part.clone() for part in tensors_in(self.model(*(part.clone() for part in self.inputs)))]

    def _find_opaque(self, calls: Mapping[str, list[_Call]]) -> set[str]:
        """Called modules that use weights of layers below them which are not called, or matrices of their own."""
        used = self._used_parameters()
        found: set[str] = set()
        for name, module in self._modules.items():
            heavy = [part for part in own_parameters(module).values() if broad_dims(part) > 1 and id(part) in used]
            if not heavy or (name in calls and mixes_channels(module)) or (name in calls and is_grouped(module)):
                continue
            if name in calls and not is_leaf(module):
                continue  # a table of its own beside layers that it calls: looked at as a tensor
            top = name
            while top and top not in calls:
                top = top.rpartition(".")[0]
            if top:
                found.add(top)
        found |= {name for name in calls if isinstance(self._modules[name], nn.MultiheadAttention)}
        return {name for name in found if not any(name.startswith(f"{top}.") for top in found)}

    def _used_parameters(self) -> set[int]:
        """Ids of the parameters that the outputs depend on, read off the autograd graph."""
        frozen = [part for part in self.model.parameters() if part.is_floating_point() and not part.requires_grad]
        try:
            for part in frozen:
                part.requires_grad_(True)
            with torch.enable_grad():
                outputs = tensors_in(self.model(*(part.clone() for part in self.inputs)))
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

    def _is_leaf(self, name: str, calls: list[_Call]) -> bool:
        module = self._modules[name]
        if mixes_channels(module) or not is_leaf(module) or len(calls) != 1:
            return False
        inputs, output = calls[0].inputs, calls[0].output
        if is_grouped(module):
            return module.in_channels == module.out_channels  # type: ignore[no-any-return]
        return len(inputs) >= 1 and isinstance(output, Tensor) and output.shape == inputs[0].shape

    def _freeze(self, name: str) -> Callable[..., Any]:
        module, calls = self._modules[name], self._calls[name]
        is_opaque = name in self.opaque or isinstance(module, nn.Embedding)
        source = Source(name)

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = calls[self._numbers[name]]
            self._numbers[name] += 1
            given = tensors_in((*args, *kwargs.values()))
            if _differ(given, call.inputs):
                if is_opaque:
                    self._response.opaque.add(name)
                else:
                    changed = _changed(given[0], call.inputs[0], input_dim(module))
                    known = self._response.read.get(name)
                    self._response.read[name] = changed if known is None else changed | known
            output = _cloned(call.output)
            chosen = self._changes.get(source)
            return output if chosen is None else _perturbed(output, chosen, output_dim(module), self._sign)

        return forward

    def _shift(self, name: str) -> Callable[..., Any]:
        module, (call,) = self._modules[name], self._calls[name]
        real, runs_really = module.forward, is_grouped(module)
        sizes = {size for parameter in module.parameters(recurse=False) for size in parameter.shape}
        shape = call.inputs[0].shape
        dims = [1] if runs_really else [dim for dim in range(1, len(shape)) if shape[dim] in sizes]

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            was = call.inputs[0]
            if x.shape != was.shape:
                self._response.opaque.add(name)
                return call.output.clone()
            if torch.equal(x, was):
                return call.output.clone()
            masks = {dim: _changed(x, was, dim) for dim in dims if dim < x.ndim}
            known = self._response.through.get(name, masks)
            self._response.through[name] = {dim: mask | known[dim] for dim, mask in masks.items()}
            return real(x, *args, **kwargs) if runs_really else call.output + (x - was).to(call.output.dtype)

        return forward

    @contextmanager
    def _tensor_changed(self, source: Source, chosen: Mask) -> Iterator[None]:
        tensor = getattr(self._modules[source.module], source.tensor)
        old = tensor.detach().clone()
        tensor.copy_(_perturbed(old, chosen, source.dim, self._sign))
        try:
            yield
        finally:
            tensor.copy_(old)


@contextmanager
def replaying(model: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Replay]:
    """A replay of one forward pass, in eval mode, for the length of the `with`."""
    with evaluating(model), without_fast_path(), torch.no_grad():
        replay = Replay(model, inputs)
        with replay._installed():
            replay.respond({})
            yield replay


def _perturbed(value: Tensor, chosen: Mask, dim: int, sign: float) -> Tensor:
    """The chosen channels of a copy are moved far enough to wake activations that cut off what is below zero."""
    moved = value.movedim(dim, -1).clone()
    steps = 1.0 + torch.arange(moved.numel() // moved.shape[-1]).to(value) / moved.numel()  # not the same everywhere
    moved[..., chosen] += sign * _FAR * value.abs().amax().clamp(min=1.0) * steps.reshape(*moved.shape[:-1], 1)
    return moved.movedim(-1, dim)


def _changed(new: Tensor, old: Tensor, dim: int) -> Mask:
    if new.shape != old.shape:
        return torch.ones(new.shape[dim], dtype=torch.bool)
    return (new != old).transpose(0, dim).flatten(1).any(1).cpu() if new.ndim > 1 else (new != old).cpu()


def _differ(new: list[Tensor], old: list[Tensor]) -> bool:
    return len(new) != len(old) or any(not torch.equal(one, other) for one, other in zip(new, old, strict=True))


def _cloned(value: Any) -> Any:
    """Models may change what a layer hands out in place."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return type(value)(_cloned(part) for part in value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _cloned(value[key])
    return value
