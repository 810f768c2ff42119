"""Presents linear and convolution layers as one least-squares problem: rows of inputs, and the outputs for them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from toolkit.channels.layers import is_conv, is_grouped, is_transposed_linear

PLACES_PER_INPUT = 4  # places per input that a convolution is fitted to in each batch: neighbours are nearly alike

LEAST_PLACES = 1024  # places that are used at least, if a batch has so many


@dataclass(frozen=True)
class Rows:
    """Holds the inputs of a layer at some places, as rows.

    inputs: [places, fan-in], with a column of ones at the end for a bias.
    pick: gives the values [places, channels] at the same places of a tensor in the layout of the layer's output.
    """

    inputs: Tensor
    pick: Callable[[Tensor], Tensor]


def can_be_fitted(layer: nn.Module) -> bool:
    """Returns whether a layer is of a class that can be refitted."""
    if isinstance(layer, nn.Linear) or is_transposed_linear(layer):
        return True
    return isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd) and not is_grouped(layer)


def rows_of(layer: nn.Module, inputs: Tensor, output_shape: torch.Size, with_offset: bool = False) -> Rows:
    """Returns the rows of one batch: what a layer reads for each of its outputs.

    with_offset: whether a column of ones is appended even if the layer has no bias, for an offset that is added behind
        it.
    """
    rows = _conv_rows(layer, inputs, output_shape) if isinstance(layer, _ConvNd) else _linear_rows(inputs)
    if getattr(layer, "bias", None) is None and not with_offset:
        return rows
    return Rows(torch.cat([rows.inputs, rows.inputs.new_ones(len(rows.inputs), 1)], dim=1), rows.pick)


def without_padding(*parts: Tensor) -> tuple[Tensor, ...]:
    """Returns the rows that are finite in all parts [places, ...]: rows of padding may be NaN.

    If no row is finite, all rows are returned, so that the code that uses them finds the fault.
    """
    if all(math.isfinite(float(part.sum())) for part in parts):
        return parts  # the usual case, found out several times faster than row by row
    finite = torch.stack([part.isfinite().all(1) for part in parts]).all(0)
    return parts if bool(finite.all()) or not bool(finite.any()) else tuple(part[finite] for part in parts)


def _linear_rows(inputs: Tensor) -> Rows:
    return Rows(inputs.flatten(0, -2), lambda outputs: outputs.flatten(0, -2))


def _conv_rows(layer: _ConvNd, inputs: Tensor, output_shape: torch.Size) -> Rows:
    """Returns patches at evenly spaced places: PLACES_PER_INPUT for each number in a patch, which limits the time."""
    batch, spatial = output_shape[0], tuple(output_shape[2:])
    total = batch * torch.Size(spatial).numel()
    most = max(LEAST_PLACES, PLACES_PER_INPUT * layer.weight[0].numel())
    chosen = torch.linspace(0, total - 1, min(total, most), device=inputs.device).round().long()
    places = torch.unravel_index(chosen, (batch, *spatial))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    columns = []
    for offset in itertools.product(*(range(size) for size in layer.kernel_size)):
        at = [
            place * stride + step * dilation
            for place, step, stride, dilation in zip(places[1:], offset, layer.stride, layer.dilation, strict=True)
        ]
        columns.append(padded.movedim(1, -1)[(places[0], *at)])  # [places, channels]
    rows = torch.stack(columns, dim=-1).flatten(1)  # channel after channel, as in the weights
    return Rows(rows, lambda outputs: outputs.movedim(1, -1)[places])


@torch.no_grad()
def plain_output(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Returns what the layer's class computes, without anything that a subclass adds."""
    inputs = inputs.to(layer.get_parameter("weight").dtype)  # autocast casts inside the layer
    if is_transposed_linear(layer):
        return inputs @ layer.get_parameter("weight") + layer.get_parameter("bias")
    base: Any = next(kind for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, kind))
    plain: Tensor = base.forward(layer, inputs)
    return plain


def matrix_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """Returns a weight of the layer's shape as [fan-in, outputs], in float64."""
    exact = weight.detach().double()
    return exact if is_transposed_linear(layer) else exact.flatten(1).T


def solution_of(layer: nn.Module) -> Tensor:
    """Returns the layer's weights, and its bias as the last row, as [fan-in (+ 1), outputs] in float64."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    parts = [matrix_of(layer, weight)]
    if isinstance(bias, Tensor):
        parts.append(bias.detach().double()[None])
    return torch.cat(parts)


def weights_from(layer: nn.Module, solution: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns weight and bias (or None) of a solution in the layer's shape and type: the inverse of `solution_of`."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    rows = solution if bias is None else solution[:-1]
    new = (rows if is_transposed_linear(layer) else rows.T).reshape(weight.shape).to(weight.dtype).contiguous()
    return new, None if bias is None else solution[-1].to(weight.dtype)


def channels_of(layer: nn.Module, value: Tensor, kept: tuple[int, ...]) -> Tensor:
    """Returns the output channels `kept` of a tensor in the layout of the layer's output."""
    return value.index_select(1 if is_conv(layer) else -1, torch.tensor(kept, device=value.device))
