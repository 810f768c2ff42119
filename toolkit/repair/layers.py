"""Linear and convolution layers as one least-squares problem: rows of inputs, and the outputs at the same places."""

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

PLACES_PER_INPUT = 4  # of a batch's outputs that a convolution is fitted to: neighbours say nearly the same

LEAST_PLACES = 1024  # where a batch has as many


@dataclass(frozen=True)
class Rows:
    """`inputs` [places, fan-in (+ 1 with a bias)]; `pick` takes outputs [places, channels] from a tensor like them."""

    inputs: Tensor
    pick: Callable[[Tensor], Tensor]


def can_be_fitted(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear) or is_transposed_linear(layer):
        return True
    return isinstance(layer, _ConvNd) and not isinstance(layer, _ConvTransposeNd) and not is_grouped(layer)


def rows_of(layer: nn.Module, inputs: Tensor, output_shape: torch.Size, with_offset: bool = False) -> Rows:
    """What `layer` reads for each of its outputs, for one batch; a column of ones at the end where it has a bias, or
    where something behind it adds an offset (`with_offset`)."""
    rows = _conv_rows(layer, inputs, output_shape) if isinstance(layer, _ConvNd) else _linear_rows(inputs)
    if getattr(layer, "bias", None) is None and not with_offset:
        return rows
    return Rows(torch.cat([rows.inputs, rows.inputs.new_ones(len(rows.inputs), 1)], dim=1), rows.pick)


def without_padding(*parts: Tensor) -> tuple[Tensor, ...]:
    """Returns the rows [places, numbers of each part] that are finite in all parts: those of padding may be NaN.

    Where no row is finite, all are returned: what is broken is found where the rows are used.
    """
    if all(math.isfinite(float(part.sum())) for part in parts):
        return parts  # the usual case, found out several times faster than row by row
    finite = torch.stack([part.isfinite().all(1) for part in parts]).all(0)
    return parts if bool(finite.all()) or not bool(finite.any()) else tuple(part[finite] for part in parts)


def _linear_rows(inputs: Tensor) -> Rows:
    return Rows(inputs.flatten(0, -2), lambda outputs: outputs.flatten(0, -2))


def _conv_rows(layer: _ConvNd, inputs: Tensor, output_shape: torch.Size) -> Rows:
    """Patches at evenly spread places: as many as bound the time, several for each number in a patch."""
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
    """Returns what the layer's class makes of inputs: a subclass may scale, pad or act too."""
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
    """The layer's weights as [fan-in (+ 1), outputs], in float64."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    parts = [matrix_of(layer, weight)]
    if isinstance(bias, Tensor):
        parts.append(bias.detach().double()[None])
    return torch.cat(parts)


def weights_from(layer: nn.Module, solution: Tensor) -> tuple[Tensor, Tensor | None]:
    """The inverse of `solution_of`, in the layer's own shape and type."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    rows = solution if bias is None else solution[:-1]
    new = (rows if is_transposed_linear(layer) else rows.T).reshape(weight.shape).to(weight.dtype).contiguous()
    return new, None if bias is None else solution[-1].to(weight.dtype)


def channels_of(layer: nn.Module, value: Tensor, kept: tuple[int, ...]) -> Tensor:
    """`kept` output channels of a tensor that looks like the layer's output."""
    return value.index_select(1 if is_conv(layer) else -1, torch.tensor(kept, device=value.device))
