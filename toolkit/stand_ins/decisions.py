"""Takes over what the dynamic layers of a model do: notes their choices, or makes the choices for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from toolkit.hooks.copies import copy_model
from toolkit.stand_ins.dynamic_conv import Control, DynamicConv


@dataclass
class Choices:
    """Holds the choices of a dynamic layer in one or more forward passes.

    decisions: for each call int64 [B, 2], the option of each input.
    shapes: for each call the shape of the stream.
    """

    decisions: list[Tensor] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def costs(self, layer: DynamicConv) -> list[int]:
        """Returns the multiply-adds that the layer took for each input, the gate's included."""
        gate = 0 if layer.gate is None else layer.gate.macs
        costs = []
        for decisions, shape in zip(self.decisions, self.shapes, strict=True):
            of_option = layer.option_macs(shape)
            costs += [of_option[step, part] + gate for step, part in decisions.tolist()]
        return costs


def dynamic_layers(model: nn.Module) -> dict[str, DynamicConv]:
    """Returns the dynamic convolutions of a model by name, in module order."""
    return {name: module for name, module in model.named_modules() if isinstance(module, DynamicConv)}


def gated_layers(model: nn.Module) -> dict[str, DynamicConv]:
    """Returns the dynamic convolutions that have a gate, by name, in module order."""
    return {name: layer for name, layer in dynamic_layers(model).items() if layer.gate is not None}


def without_gates(model: nn.Module) -> nn.Module:
    """Returns a copy in which each dynamic layer always takes the option that its gate takes most often."""
    copied = copy_model(model)
    for layer in gated_layers(copied).values():
        layer.arguments = layer.arguments.model_copy(update={"gate": None})
        layer.gate = None
    return copied


@contextmanager
def controlled(layers: dict[str, DynamicConv], control_of: Callable[[str], Control]) -> Iterator[None]:
    """Lets the function that `control_of` returns for a layer's name compute the layer's output, within the `with`."""
    for name, layer in layers.items():
        layer.control = control_of(name)
    try:
        yield
    finally:
        for layer in layers.values():
            layer.control = None


@contextmanager
def choices_noted(
    model: nn.Module, choose: Callable[[str, DynamicConv, Tensor], Tensor] | None = None
) -> Iterator[dict[str, Choices]]:
    """Yields the choices that the gated layers make within the `with`, by the layer's name.

    choose: returns the choices int64 [B, 2] for the name, the layer and its stream; None leaves them to the gates.
    """
    layers = gated_layers(model)
    noted = {name: Choices() for name in layers}

    def control_of(name: str) -> Control:
        def control(layer: DynamicConv, stream: Tensor) -> Tensor:
            decisions = layer.decide(stream) if choose is None else choose(name, layer, stream)
            noted[name].decisions.append(decisions.cpu())
            noted[name].shapes.append(tuple(stream.shape))
            return layer.compute_each(stream, decisions)

        return control

    with controlled(layers, control_of):
        yield noted
