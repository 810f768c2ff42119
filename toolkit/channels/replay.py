"""Finds how far a change of a layer's outputs reaches before another layer reads it.

Every layer that mixes channels is frozen: it returns its recorded output whatever it reads. A change of one layer's
outputs thus travels through activations, norms, additions, attention and reshaping, and ends at the layers that read
it. Norms add the change of their input to their output (y + x' - x), so that their statistics do not spread a change
over all channels.

Recorded outputs get noise, because attention among equal tokens does not depend on its queries. Parameters outside of
layers that are all zero are filled, because nothing can be seen behind a scale of zero.
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


@dataclass(frozen=True)
class Source:
    """Names where a change begins: the outputs of a layer, or a dimension of a module's own parameter or buffer."""

    module: str
    tensor: str = ""
    dim: int = 0


@dataclass
class Response:
    """Holds what a change reached.

    outputs_changed: whether it reached the outputs of the model.
    read: the changed inputs of each layer that mixes channels.
    through: the changed channels of the input of each leaf, by dimension, for dimensions as long as one of its
        parameters.
    opaque: modules that read the change and use weights of layers that they do not call.
    """

    outputs_changed: bool = False
    read: dict[str, Mask] = field(default_factory=dict)
    through: dict[str, dict[int, Mask]] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)


class Replay:
    """Records one forward pass of `model` and repeats it with changes; see `replaying`, which restores the model.

    A layer that is called several times is changed at all of its calls, and counts as a reader if one of its calls
    reads a change.

    layers: the layers that mix channels, in execution order.
    leaves: other leaf modules with parameters that keep the shape of their input.
    opaque: modules that use weights of layers that they do not call.
    order: all called modules with parameters, in execution order.
    """

    def __init__(self, model: nn.Module, path: Path) -> None:
        self.model, self.path = model, path
        self._modules = dict(model.named_modules())
        calls = record_calls(model, self._forward)
        self.order = list(calls)
        self.opaque = opaque_modules(model, calls, path)
        inside = {name for name in calls for top in self.opaque if name.startswith(f"{top}.")}
        called = [name for name in calls if name not in inside and name not in self.opaque]
        self._frozen = [name for name in called if mixes_channels(self._modules[name])] + sorted(self.opaque)
        self.layers = [name for name in self._frozen if name not in self.opaque]
        self.leaves = [name for name in called if keeps_its_shape(self._modules[name], calls[name])]
        replayed = {*self._frozen, *self.leaves}
        self._calls = {name: recorded for name, recorded in calls.items() if name in replayed}
        self._made = [(name, len(recorded)) for name, recorded in calls.items()]
        self._response, self._changes, self._sign = Response(), dict[Source, Mask](), 1.0
        self._numbers: dict[str, int] = {}
        self._outputs: list[Tensor] = []

    @contextmanager
    def _with_noise(self) -> Iterator[None]:
        """Replaces the recorded pass by one with noise for the length of the `with`.

        A model that calls other modules then, because values decide its way, is replayed without noise.
        """
        old = {part: part.detach().clone() for part in self._zero_parameters()}
        noise = {
            name: iter([with_noise(call.output, f"{name} {place}") for place, call in enumerate(self._calls[name])])
            for name in self.layers
        }
        forwards = {name: _handing_out(outputs) for name, outputs in noise.items()}
        try:
            for part in old:
                part.copy_(0.5 + torch.rand(part.shape, generator=torch.Generator().manual_seed(0)).to(part))
            with self._replaced(forwards):
                calls = record_calls(self.model, self._forward)
        except Exception:  # the user's code may raise anything
            calls = {}
        if [(name, len(repeated)) for name, repeated in calls.items()] == self._made:
            self._calls = {name: calls[name] for name in self._calls}
        else:
            _put_back(old)
        try:
            yield
        finally:
            _put_back(old)

    def _zero_parameters(self) -> Iterator[nn.Parameter]:
        """Yields the parameters outside of layers, leaves and opaque modules that are zero throughout."""
        for name, module in self._modules.items():
            is_inside = any(name == top or name.startswith(f"{top}.") for top in self.opaque)
            if name not in self._calls and not is_inside and not mixes_channels(module):
                parameters = module.parameters(recurse=False)
                yield from (part for part in parameters if part.is_floating_point() and not bool(part.any()))

    @contextmanager
    def _installed(self) -> Iterator[None]:
        """Replaces the forward of every frozen layer and every leaf for the length of the `with`."""
        forwards = {name: self._freeze(name) for name in self._frozen} | {
            name: self._shift(name) for name in self.leaves
        }
        with self._replaced(forwards):
            yield

    @contextmanager
    def _replaced(self, forwards: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            for name, forward in forwards.items():
                stack.enter_context(forward_replaced(self._modules[name], partial(_other, forward)))
            yield

    def respond(self, changes: Mapping[Source, Mask]) -> Response:
        """Returns what changes of the chosen channels of all sources reach, in either direction; see `replaying`."""
        self._response, self._changes = Response(), dict(changes)
        for self._sign in (1.0, -1.0):
            self._numbers = dict.fromkeys(self._calls, 0)
            with ExitStack() as stack:
                for source, chosen in changes.items():
                    if source.tensor:
                        stack.enter_context(self._tensor_changed(source, chosen))
                outputs = self._forward()
            if not changes:
                self._outputs = outputs  # outputs of the unchanged pass
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
            inputs = tensors_in((*args, *kwargs.values()))
            if differ(inputs, call.inputs):
                if is_opaque:
                    self._response.opaque.add(name)
                else:
                    mask = changed(inputs[0], call.inputs[0], channel_dim(module))
                    earlier = self._response.read.get(name)
                    self._response.read[name] = mask if earlier is None else mask | earlier
            output = cloned(call.output)
            chosen = self._changes.get(source)
            return output if chosen is None else perturbed(output, chosen, channel_dim(module), self._sign)

        return forward

    def _next_call(self, name: str) -> Call:
        """Returns the recorded call that this one repeats.

        A module that is called more often than recorded counts as opaque.
        """
        calls, number = self._calls[name], self._numbers[name]
        self._numbers[name] += 1
        if number >= len(calls):
            self._response.opaque.add(name)
        return calls[min(number, len(calls) - 1)]

    def _shift(self, name: str) -> Callable[..., Any]:
        module = self._modules[name]
        original, is_run = module.forward, is_grouped(module)
        sizes = channel_sizes(module)
        shapes = [call.inputs[0].shape for call in self._calls[name]]
        lengths = list(zip(*shapes, strict=False))  # the length of each dimension at every call
        fixed = [dim for dim, sizes_seen in enumerate(lengths) if len(set(sizes_seen)) == 1 and sizes_seen[0] in sizes]
        dims = [1] if is_run else [dim for dim in fixed if dim > 0]
        if len(dims) > 1:  # two dimensions of one length, as where there are as many heads as channels of each
            dims = dims_of_parameters(module, self._calls[name][0]) or dims

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self._next_call(name)
            recorded = call.inputs[0]
            if x.shape != recorded.shape:
                self._response.opaque.add(name)
                return call.output.clone()
            if equal(x, recorded):
                return call.output.clone()
            masks = {dim: changed(x, recorded, dim) for dim in dims if dim < x.ndim}
            earlier = self._response.through.get(name, masks)
            self._response.through[name] = {dim: mask | earlier[dim] for dim, mask in masks.items()}
            if is_run:  # a sum of changes may fall where the activation behind it cuts off, so it is not handed on
                moved = unlike(original(x, *args, **kwargs), call.output)
                everywhere = moved.new_ones(moved.shape[1])
                return torch.where(moved, perturbed(call.output, everywhere, 1, self._sign), call.output)
            return call.output + torch.where(unlike(x, recorded), x - recorded, 0.0).to(call.output.dtype)

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
    """Yields a replay of one forward pass; the model is restored when the `with` ends."""
    with path.taken(model), torch.no_grad():
        replay = Replay(model, path)
        with replay._with_noise(), replay._installed():
            replay.respond({})
            yield replay
