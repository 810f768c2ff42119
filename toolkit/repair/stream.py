"""Finds which dimension of a block's stream holds the channels, by the layers that read or write the stream."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from toolkit.channels.layers import channel_dim, is_conv
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.stand_ins.linear_bypass import LinearBypassArguments, StreamLayer
from toolkit.stand_ins.output import OutputStructure

CONVOLUTIONS: Final[dict[int, StreamLayer]] = {
    3: "conv1d",
    4: "conv2d",
    5: "conv3d",
}  # number of the stream's dimensions -> layer


def bypass_arguments(
    model: nn.Module,
    block: str,
    inputs: Inputs,
    *,
    structure: OutputStructure,
    behind: str,
    rank: int | None = None,
) -> LinearBypassArguments | None:
    """Returns the arguments of a bypass in the place of `block`; None if the dimension of the channels is not known.

    structure, behind: how the block ends (see `toolkit.blocks.find.BlockEnd`).

    Raises:
        ValueError: the rank is larger than the number of channels.
    """
    stream, dim = _stream_of(model, block, inputs)
    if stream is None or dim is None:
        return None
    layer = "linear" if dim == -1 else CONVOLUTIONS[stream.dim()]
    options = {"layer": layer, "channels": stream.shape[dim], "rank": rank, "behind": behind}
    return LinearBypassArguments.model_validate({"structure": structure, **options})


def _stream_of(model: nn.Module, block: str, inputs: Inputs) -> tuple[Tensor | None, int | None]:
    """Returns the stream that enters a block, and the dimension of its channels, 1 or -1; None for what is not known.

    The dimension is that of a layer that reads the stream itself. If no layer does, it is that of the layers whose
    outputs have the stream's shape, if they agree: a block adds one of these outputs to the stream.
    """
    entry = ActivationPoint(block, "input")
    layers = {name: module for name, module in model.named_modules() if name.startswith(f"{block}.")}
    known = {name: dim for name, module in layers.items() if (dim := _dim_of(module)) is not None}
    points = {ActivationPoint(name, side) for name in known for side in ("input", "output")}
    seen = capture(model, inputs, {entry, *points})
    stream = seen.get(entry)
    if stream is None or not stream.is_floating_point():
        return None, None

    def dims(side: str, *, exact: bool) -> set[int]:
        named = {name: seen.get(ActivationPoint(name, side)) for name in known}
        alike = {name: value for name, value in named.items() if value is not None and value.shape == stream.shape}
        possible = {known[name] for name, value in alike.items() if not exact or torch.equal(value, stream)}
        return {dim for dim in possible if dim == -1 or stream.dim() in CONVOLUTIONS}

    for possible in (dims("input", exact=True), dims("output", exact=False)):
        if len(possible) == 1:
            return stream, possible.pop()
    return stream, None


def _dim_of(module: nn.Module) -> int | None:
    """Returns the dimension of the channels that a layer reads and writes; None if it is not known.

    A subclass of LayerNorm may use another dimension, so it is not known there.
    """
    if isinstance(module, nn.Linear) or is_conv(module):
        return channel_dim(module)
    if isinstance(module, (_BatchNorm, nn.GroupNorm)):
        return 1
    return -1 if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1 else None
