"""Where a linear layer's output joins the stream: found by shifting the output and watching what shifts with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from toolkit.stages.repair import Inputs, Point, Site, capture

TOLERANCE = 1e-3  # of the shift's largest value


def execution_order(model: nn.Module, inputs: Inputs) -> list[str]:
    """Names of the modules that one forward pass calls, in the order in which their calls begin."""
    order: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda _, __, n=name: order.append(n))
        for name, module in model.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return order


@contextmanager
def _shifted(layer: nn.Module, shift: Tensor) -> Iterator[None]:
    handle = layer.register_forward_hook(lambda _, __, output: output + shift)
    try:
        yield
    finally:
        handle.remove()


def adds_to(model: nn.Module, layer: str, point: Point, inputs: Inputs) -> bool:
    """Whether shifting the layer's output shifts the stream at `point` by exactly as much, whatever the shift."""
    places = {point, Point(layer, "output")}
    before = capture(model, inputs, places)
    if len(before) < len(places) or before[point].shape != before[Point(layer, "output")].shape:
        return False
    output = before[Point(layer, "output")]
    shift = _shift_like(output)
    with _shifted(model.get_submodule(layer), shift):
        after = capture(model, inputs, {point})
    return _moved_by(shift, after[point] - before[point])


def _shift_like(output: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(output.shape, generator=generator).to(output) * output.std().clamp(min=1e-3)


def _moved_by(shift: Tensor, difference: Tensor) -> bool:
    return bool((difference - shift).abs().max() <= TOLERANCE * shift.abs().max())


def absorber(model: nn.Module, block: str, inputs: Inputs, order: list[str]) -> str | None:
    """The last linear layer before `block` whose output is added to the block's input; None where there is none."""
    before = order[: order.index(block)]
    for name in reversed(before):
        is_candidate = isinstance(model.get_submodule(name), nn.Linear) and order.count(name) == 1
        if is_candidate and adds_to(model, name, Point(block, "input"), inputs):
            return name
    return None


def depth_site(model: nn.Module, block: str, inputs: Inputs, order: list[str]) -> Site | None:
    """How to make up for dropping `block`: the stream into it should become the reference's stream out of it."""
    layer = absorber(model, block, inputs, order)
    return None if layer is None else Site(layer, Point(block, "input"), Point(block, "output"))


def joining_point(model: nn.Module, layer: str, block: str | None, inputs: Inputs, order: list[str]) -> Point:
    """Where the output of `layer` joins the stream; its own output where that is not to be seen.

    The stream is looked for at the inputs of the modules that follow inside `block`, then at the block's output.
    """
    own = Point(layer, "output")
    if block is None:
        return own
    inside = [name for name in order[order.index(layer) + 1 :] if name.startswith(f"{block}.")]
    points = [*(Point(name, "input") for name in inside), Point(block, "output")]
    before = capture(model, inputs, {own, *points})
    output = before[own]
    shift = _shift_like(output)
    with _shifted(model.get_submodule(layer), shift):
        after = capture(model, inputs, points)
    for point in points:  # nothing is added between the layer and a point that sees just its output
        if point not in after or before[point].shape != output.shape:
            continue
        is_stream = not torch.equal(before[point], output)
        if is_stream and _moved_by(shift, after[point] - before[point]):
            return point
    return own


def rest_point(model: nn.Module, layer: str, block: str, inputs: Inputs, order: list[str]) -> Point | None:
    """Where inside `block` the stream can be seen that, plus the layer's output, is the block's output bit for bit."""
    before = [name for name in order[: order.index(layer)] if name.startswith(f"{block}.")]
    ends = Point(layer, "output"), Point(block, "output")
    seen = capture(model, inputs, {*(Point(name, "input") for name in before), *ends})
    added, output = (seen[end] for end in ends)
    for name in reversed(before):
        rest = seen.get(Point(name, "input"))
        if rest is not None and rest.shape == added.shape and torch.equal(rest + added, output):
            return Point(name, "input")
    return None
