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

from toolkit.channels.calls import keeps_its_shape, opaque_modules, record_calls
from toolkit.channels.changes import Mask, changed, cloned, differ, perturbed
from toolkit.channels.layers import channel_dim, is_grouped, mixes_channels
from toolkit.hooks.paths import Path
from toolkit.hooks.tensors import tensors_in


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

    `layers` mix channels and are called once, in execution order; `leaves` are other leaf modules with parameters
    that keep the shape of their input; `opaque` modules compute with weights of layers that they do not call.
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
        self.layers = [name for name in self._frozen if name not in self.opaque and len(calls[name]) == 1]
        self.leaves = [name for name in called if keeps_its_shape(self._modules[name], calls[name])]
        kept = {*self._frozen, *self.leaves}
        self._calls = {name: recorded for name, recorded in calls.items() if name in kept}
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
            self._response.outputs_changed |= differ(outputs, self._outputs)
        return self._response

    def _forward(self) -> list[Tensor]:
        return self.path.run(self.model)

    def _freeze(self, name: str) -> Callable[..., Any]:
        module, calls = self._modules[name], self._calls[name]
        is_opaque = name in self.opaque or isinstance(module, nn.Embedding)
        source = Source(name)

        def forward(*args: Any, **kwargs: Any) -> Any:
            call = calls[self._numbers[name]]
            self._numbers[name] += 1
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
            masks = {dim: changed(x, was, dim) for dim in dims if dim < x.ndim}
            known = self._response.through.get(name, masks)
            self._response.through[name] = {dim: mask | known[dim] for dim, mask in masks.items()}
            return real(x, *args, **kwargs) if runs_really else call.output + (x - was).to(call.output.dtype)

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


@contextmanager
def replaying(model: nn.Module, path: Path) -> Iterator[Replay]:
    """A replay of one forward pass for the length of the `with`."""
    with path.taken(model), torch.no_grad():
        replay = Replay(model, path)
        with replay._installed():
            replay.respond({})
            yield replay
