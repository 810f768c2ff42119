"""Finds how the output of a layer joins the stream: what follows the layer, and what follows the addition.

In a post-activation ResNet a convolution is followed by BatchNorm, and every addition by a ReLU:
stream = relu(rest + norm(layer)). The sum before the ReLU is measured by lifting it: a large constant is added to the
layer's end, so that the ReLU passes everything; the lifted stream less the constant is the sum.

In ConvNeXt and in many transformers a fixed scale per channel (LayerScale) stands between layer and addition. It is
found by its effect, whether it is a module or a parameter of the block: if the layer's output is moved, the stream
moves by the scaled move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.channels.layers import channel_dim, num_outputs
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.hooks.tensors import unlike
from toolkit.repair.layers import plain_output
from toolkit.repair.moves import TOLERANCE, move_like, moved_by, moved_stream, shifted
from toolkit.repair.readers import reads_alone

HEADROOM = 4.0  # a lift is so many times the largest value of the stream

BEHIND: Final[dict[str, Callable[[Tensor], Tensor]]] = {"nothing": lambda total: total, "relu": torch.relu}

LAYOUTS: Final[dict[str, Callable[[Tensor, torch.Size], Tensor]]] = {
    "same": lambda stream, _: stream,
    "channels_first": lambda stream, _: stream.movedim(1, -1),
    "reshaped": lambda stream, shape: stream.reshape(shape),
}


@dataclass(frozen=True)
class Joint:
    """Describes how the output of a layer joins the stream.

    norm: the name of the BatchNorm that alone reads the layer's output; None if there is none.
    behind: what the sum passes after the addition, one of `BEHIND`.
    lift: the constant to add to the layer's end so that the sum can be measured behind a ReLU; 0 without a ReLU.
    scale: the factor of each channel of the layer's output before the addition; empty if there is none.
    layout: how the stream's dimensions are arranged compared with the layer's output, one of `LAYOUTS`.
    """

    norm: str | None = None
    behind: str = "nothing"
    lift: float = 0.0
    scale: tuple[float, ...] = ()
    layout: str = "same"

    def end(self, layer: str) -> str:
        """Returns the name of the module whose output is added to the stream."""
        return self.norm or layer

    def like_output(self, stream: Tensor, shape: torch.Size) -> Tensor:
        """Returns a stream in the layout of the layer's output, which has this shape."""
        return LAYOUTS[self.layout](stream, shape)


PLAIN: Final = Joint()


@contextmanager
def lifted(model: nn.Module, layer: str, joint: Joint) -> Iterator[None]:
    """Lifts the sum of a joint for the length of the `with`, if the joint has a lift."""
    if not joint.lift:
        yield
        return
    with shifted(model.get_submodule(joint.end(layer)), joint.lift):
        yield


def find_joint(
    model: nn.Module, layer: str, point: ActivationPoint, inputs: Inputs, order: Sequence[str]
) -> Joint | None:
    """Returns how the output of `layer` joins the stream at `point`; None if it does not join it there.

    It joins the stream if the stream moves by exactly as much as the layer's end is moved, for any move: without a
    lift, or with the sum lifted above the ReLU. The move may be scaled by a fixed factor per channel.

    order: the modules of the model in execution order.
    """
    norm = norm_of(model, layer, inputs, order)
    end = ActivationPoint(norm or layer, "output")
    activations = capture(model, inputs, {point, end, ActivationPoint(layer, "output")})
    if point not in activations or end not in activations:
        return None
    largest = max(float(value.abs().max()) for value in activations.values())
    if not math.isfinite(largest):
        return None
    for layout in _layouts(activations[point], activations[end]):
        lift = 2.0 ** math.ceil(math.log2(HEADROOM * max(largest, 1e-3)))
        for height in (0.0, lift) if layout == "same" else (0.0,):
            behind = _behind(model, end, point, inputs, height, Joint(norm, layout=layout))
            if behind is not None:
                return Joint(norm, behind, height if behind != "nothing" else 0.0, layout=layout)
        scale = () if norm is not None else _scale_of(model, layer, point, inputs, layout)
        if scale:
            joint = Joint(scale=scale, layout=layout)
            if _behind(model, end, point, _others(inputs), 0.0, joint) == "nothing":
                return joint
    return None


def _layouts(stream: Tensor, output: Tensor) -> list[str]:
    """Returns the layouts in which a stream may hold the output of a layer."""
    if stream.shape == output.shape:
        return ["same"]
    fits = {
        "channels_first": stream.dim() > 2 and stream.movedim(1, -1).shape == output.shape,
        "reshaped": stream.numel() == output.numel() and stream.shape[-1] == output.shape[-1],
    }
    return [name for name, fit in fits.items() if fit]


def _behind(
    model: nn.Module, end: ActivationPoint, point: ActivationPoint, inputs: Inputs, height: float, joint: Joint
) -> str | None:
    """Returns what the sum passes (a key of `BEHIND`) if the stream follows moves of the layer's end; else None."""
    unmoved = capture(model, inputs, {point, end})
    if len(unmoved) < 2:  # values decide which layers run, and these inputs run others
        return None
    shape, module = unmoved[end].shape, model.get_submodule(end.module)
    scale = _along_channels(torch.tensor(joint.scale or (1.0,)).to(unmoved[end]), module, len(shape))
    moves = [move_like(unmoved[end], seed) for seed in (0, 1)]
    streams = [moved_stream(model, module, move + height, point, inputs) for move in moves]
    moved = [joint.like_output(stream, shape) for stream in streams if stream is not None]
    if len(moved) < len(moves):
        return None
    if not moved_by((moves[1] - moves[0]) * scale, moved[1] - moved[0]):
        return None
    total = moved[0] - moves[0] * scale - height
    stream = joint.like_output(unmoved[point], shape)
    return next((name for name in BEHIND if _same(BEHIND[name](total), stream)), None)


def _scale_of(model: nn.Module, layer: str, point: ActivationPoint, inputs: Inputs, layout: str) -> tuple[float, ...]:
    """Returns the factor with which each channel of the layer's output moves the stream; () if there is none."""
    module, end = model.get_submodule(layer), ActivationPoint(layer, "output")
    unmoved = capture(model, inputs, {point, end})
    move = move_like(unmoved[end])
    after = moved_stream(model, module, move, point, inputs)
    if after is None:
        return ()
    joint = Joint(layout=layout)
    shape = unmoved[end].shape
    difference = (joint.like_output(after, shape) - joint.like_output(unmoved[point], shape)).double()
    dims = [dim for dim in range(len(shape)) if dim != channel_dim(module) % len(shape)]
    scale = (difference * move).sum(dims) / move.double().square().sum(dims).clamp(min=1e-30)
    if not moved_by(move * _along_channels(scale, module, len(shape)), difference) or not bool(scale.any()):
        return ()
    return tuple(scale.tolist())


def _along_channels(values: Tensor, module: nn.Module, dims: int) -> Tensor:
    return values.view(-1, *[1] * (dims - 2)) if channel_dim(module) == 1 and len(values) > 1 else values


def _others(inputs: Inputs) -> Inputs:
    """Returns inputs that differ from these in every pooled value: they change a gate, but no fixed scale."""
    return tuple(0.5 * part.flip(-1) if part.is_floating_point() else part.flip(-1) for part in inputs)


def tail_of(model: nn.Module, layer: str, joint: Joint) -> tuple[Tensor, Tensor]:
    """Returns scale and offset [channels] that are applied to the layer's output before the addition, in float64."""
    module = model.get_submodule(layer)
    if joint.norm is None:
        scales = joint.scale or [1.0] * num_outputs(module)
        scale = module.get_parameter("weight").new_tensor(scales, dtype=torch.float64)
        return scale, torch.zeros_like(scale)
    norm = model.get_submodule(joint.norm)
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def _same(first: Tensor, second: Tensor) -> bool:
    differs = unlike(first, second)  # rows of padding may be NaN in both
    largest = second.abs().nan_to_num(0.0, 0.0, 0.0).max()
    return not bool(differs.any()) or bool((first - second)[differs].abs().max() <= TOLERANCE * largest)


def norm_of(model: nn.Module, layer: str, inputs: Inputs, order: Sequence[str]) -> str | None:
    """Returns the BatchNorm, with weights and statistics, that alone reads the output of `layer`; None if none does."""
    following = order[order.index(layer) + 1 :][:1]
    if not following or order.count(following[0]) > 1:
        return None
    norm = model.get_submodule(following[0])
    if not isinstance(norm, _BatchNorm) or not norm.affine or norm.running_mean is None:
        return None
    ends = ActivationPoint(layer, "output"), ActivationPoint(following[0], "input")
    seen = capture(model, inputs, set(ends))
    if len(seen) < 2 or not torch.equal(seen[ends[0]], seen[ends[1]]):
        return None
    return following[0] if reads_alone(model, following[0], layer, inputs) else None


def has_own_weights(model: nn.Module, layer: str) -> bool:
    """Returns whether the layer's weights are plain parameters that no other module shares, as a refit requires."""
    weights = [model.get_submodule(layer)._parameters.get(name) for name in ("weight", "bias")]
    if weights[0] is None:
        return False
    in_model = [value for module in model.modules() for value in module._parameters.values() if value is not None]
    return all(sum(value is other for other in in_model) == 1 for value in weights if value is not None)


def computes_as_its_class(model: nn.Module, layer: str, joint: Joint, inputs: Inputs) -> bool:
    """Returns whether the layer and its BatchNorm compute what their classes say: a subclass may do more."""
    module, norm = model.get_submodule(layer), joint.norm
    entry, end = ActivationPoint(layer, "input"), ActivationPoint(layer, "output")
    last = ActivationPoint(joint.end(layer), "output")
    seen = capture(model, inputs, {entry, end, last})
    plain, output = plain_output(module, seen[entry]), seen[end]
    if plain.shape != output.shape or not _same(plain, output):
        return False
    if norm is None:
        return True
    if not has_own_weights(model, norm):
        return False
    if isinstance(module, nn.Linear) and output.dim() != 2:  # its BatchNorm normalises another dimension
        return False
    scale, offset = (value.view(-1, *[1] * (output.dim() - 2)) for value in tail_of(model, layer, joint))
    return _same((output.double() * scale + offset).to(output.dtype), seen[last])
