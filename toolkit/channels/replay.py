"""How far a change of a layer's outputs reaches before another layer reads it.

Every layer that mixes channels is frozen: it hands out what it handed out before, whatever it reads. So a change of
one layer's outputs travels through activations, norms, additions, attention, reshaping ... and ends at the layers that
read it. Norms are replaced by a shift (y + x' - x), so that their statistics do not spread a change over all channels.

What the layers hand out has noise on it, and parameters beside the layers that are all zero are filled: attention among
equal tokens does not depend on its queries, and behind a scale of zero nothing is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.channels.calls import Call, dims_of_parameters, keeps_its_shape, opaque_modules, record_calls
from toolkit.channels.changes import Mask, changed, cloned, differ, perturbed, with_noise
from toolkit.channels.layers import channel_dim, channel_sizes, is_grouped, mixes_channels
from toolkit.hooks.forward import forward_replaced
from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import equal, tensors_in, unlike

FAULTS = (RuntimeError, ValueError, TypeError, AssertionError, ArithmeticError, LookupError, StopIteration)


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


class Replay:
    """One forward pass of `model`, kept, to be run again with changes. Not for training; the model is left as it was.

    `layers` mix channels, in execution order; `leaves` are other leaf modules with parameters that keep the shape of
    their input; `opaque` modules compute with weights of layers that they do not call. A layer that is called more than
    once is changed at all its calls, and what any of its calls reads counts.
    """

    def __init__(self, model: nn.Module, path: Path) -> None:
        self.model, self.path = model, path
        self._modules = dict(model.named_modules())
        calls = record_calls(model, self._forward)
        self.order = list(calls)
        self.opaque = opaque_modules(model, calls, path.inputs)
        inside = {name for name in calls for top in self.opaque if name.startswith(f"{top}.")}
        called = [name for name in calls if name not in inside and name not in self.opaque]
        self._frozen = [name for name in called if mixes_channels(self._modules[name])] + sorted(self.opaque)
        self.layers = [name for name in self._frozen if name not in self.opaque]
        self.leaves = [name for name in called if keeps_its_shape(self._modules[name], calls[name])]
        kept = {*self._frozen, *self.leaves}
        self._calls = {name: recorded for name, recorded in calls.items() if name in kept}
        self._made = [(name, len(recorded)) for name, recorded in calls.items()]
        self._response, self._changes, self._sign = Response(), dict[Source, Mask](), 1.0
        self._numbers: dict[str, int] = {}
        self._outputs: list[Tensor] = []

    @contextmanager
    def _with_noise(self) -> Iterator[None]:
        """The recorded pass has noise on it for the length of the `with`, unless its values decide what is called."""
        old = {part: part.detach().clone() for part in self._zero_parameters()}
        noise = {
            name: iter([with_noise(call.output, f"{name} {place}") for place, call in enumerate(self._calls[name])])
            for name in self.layers
        }
        ours = {name: _handing_out(outputs) for name, outputs in noise.items()}
        try:
            for part in old:
                part.copy_(0.5 + torch.rand(part.shape, generator=torch.Generator().manual_seed(0)).to(part))
            with self._replaced(ours):
                calls = record_calls(self.model, self._forward)
        except FAULTS:
            calls = {}
        if [(name, len(made)) for name, made in calls.items()] == self._made:
            self._calls = {name: calls[name] for name in self._calls}
        else:
            _put_back(old)
        try:
            yield
        finally:
            _put_back(old)

    def _zero_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of modules that are no layers, no leaves and not opaque, and that are zero throughout."""
        for name, module in self._modules.items():
            is_inside = any(name == top or name.startswith(f"{top}.") for top in self.opaque)
            if name not in self._calls and not is_inside and not mixes_channels(module):
                own = module.parameters(recurse=False)
                yield from (part for part in own if part.is_floating_point() and not bool(part.any()))

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Every frozen layer and every leaf has a forward of ours, as an attribute, before that of its class."""
        ours = {name: self._freeze(name) for name in self._frozen} | {name: self._shift(name) for name in self.leaves}
        with self._replaced(ours):
            yield

    @contextmanager
    def _replaced(self, forwards: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, forward in forwards.items():
                stack.enter_context(forward_replaced(self._modules[name], partial(_other, forward)))
            yield

    def respond(self, changes: Mapping[Source, Mask]) -> Response:
        """What changes when the chosen channels of every source do, to either side; only inside `replaying`."""
        self._response, self._changes = Response(), dict(changes)
        for self._sign in (1.0, -1.0):
            self._numbers = dict.fromkeys(self._calls, 0)
            with ExitStack() as stack:
                for source, chosen in changes.items():
                    if source.tensor:
                        stack.enter_context(self._tensor_changed(source, chosen))
                outputs = self._forward()
            if not changes:
                self._outputs = outputs  # of the unchanged pass
            self._response.outputs_changed |= differ(outputs, self._outputs)
        return self._response

    def _forward(self) -> list[Tensor]:
        return self.path.run(self.model)

    def _freeze(self, name: str) -> Callable[..., Any]:
        module = self._modules[name]
        is_opaque = name in self.opaque or isinstance(module, nn.Embedding)
        source = Source(name)

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = self._next_call(name)
            given = tensors_in((*args, *kwargs.values()))
            if differ(given, call.inputs):
                if is_opaque:
                    self._response.opaque.add(name)
                else:
                    mask = changed(given[0], call.inputs[0], channel_dim(module))
                    known = self._response.read.get(name)
                    self._response.read[name] = mask if known is None else mask | known
            output = cloned(call.output)
            chosen = self._changes.get(source)
            return output if chosen is None else perturbed(output, chosen, channel_dim(module), self._sign)

        return forward

    def _next_call(self, name: str) -> Call:
        """The recorded call that this one repeats; one more than were recorded is a reader that is not understood."""
        calls, number = self._calls[name], self._numbers[name]
        self._numbers[name] += 1
        if number >= len(calls):
            self._response.opaque.add(name)
        return calls[min(number, len(calls) - 1)]

    def _shift(self, name: str) -> Callable[..., Any]:
        module = self._modules[name]
        real, runs_really = module.forward, is_grouped(module)
        sizes = channel_sizes(module)
        shapes = [call.inputs[0].shape for call in self._calls[name]]
        lengths = list(zip(*shapes, strict=False))  # of each dimension, at every call
        alike = [dim for dim, found in enumerate(lengths) if len(set(found)) == 1 and found[0] in sizes]
        dims = [1] if runs_really else [dim for dim in alike if dim > 0]
        if len(dims) > 1:  # two dimensions of one length, as where there are as many heads as channels of each
            dims = dims_of_parameters(module, self._calls[name][0]) or dims

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self._next_call(name)
            was = call.inputs[0]
            if x.shape != was.shape:
                self._response.opaque.add(name)
                return call.output.clone()
            if equal(x, was):
                return call.output.clone()
            masks = {dim: changed(x, was, dim) for dim in dims if dim < x.ndim}
            known = self._response.through.get(name, masks)
            self._response.through[name] = {dim: mask | known[dim] for dim, mask in masks.items()}
            if runs_really:
                return real(x, *args, **kwargs)
            return call.output + torch.where(unlike(x, was), x - was, 0.0).to(call.output.dtype)

        return forward

    @contextmanager
    def _tensor_changed(self, source: Source, chosen: Mask) -> Iterator[None]:
        tensor = getattr(self._modules[source.module], source.tensor)
        old = tensor.detach().clone()
        tensor.copy_(perturbed(old, chosen, source.dim, self._sign))
        try:
            yield
        finally:
            tensor.copy_(old)


def _other(forward: Callable[..., Any], _: Callable[..., Any]) -> Callable[..., Any]:
    return forward


def _handing_out(outputs: Iterator[Any]) -> Callable[..., Any]:
    return lambda *_, **__: next(outputs)


def _put_back(old: Mapping[nn.Parameter, Tensor]) -> None:
    for part, value in old.items():
        part.copy_(value)


@contextmanager
def replaying(model: nn.Module, path: Path) -> Iterator[Replay]:
    """A replay of one forward pass for the length of the `with`."""
    with path.taken(model), torch.no_grad():
        replay = Replay(model, path)
        with replay._with_noise(), replay._installed():
            replay.respond({})
            yield replay
