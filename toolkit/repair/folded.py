"""Folds a layer and the BatchNorm or scale behind it into one linear map for a fit, and takes the map apart again."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from toolkit.repair.joint import Joint, tail_of
from toolkit.repair.layers import matrix_of, solution_of, weights_from

LEAST_SCALE = 1e-4  # share of a layer's largest channel scale below which a channel is not refitted


class HasMoments(Protocol):
    """Is a set of rows of inputs of a layer, with a column of ones at the end."""

    def output_moments(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance [outputs] of the outputs of a solution [inputs, outputs]."""
        ...


def folded_solution(model: nn.Module, name: str, joint: Joint) -> Tensor:
    """Returns the layer and its BatchNorm or scale as one linear map [fan-in (+ 1), outputs], in float64."""
    layer = model.get_submodule(name)
    scale, offset = tail_of(model, name, joint)
    if joint.norm is None:
        return solution_of(layer) * scale
    weights = matrix_of(layer, layer.get_parameter("weight")) * scale
    bias = getattr(layer, "bias", None)
    return torch.cat([weights, (offset if bias is None else offset + bias.detach().double() * scale)[None]])


def unfolded_weights(model: nn.Module, name: str, joint: Joint, solution: Tensor) -> tuple[Tensor, Tensor | None]:
    """Returns weight and bias of the layer for a map; a BatchNorm behind the layer takes the map's offset.

    Channels with a scale of nearly 0 keep their weights.
    """
    layer = model.get_submodule(name)
    if joint.norm is None:
        scale, _ = tail_of(model, name, joint)
        is_dead = scale.abs() < LEAST_SCALE * scale.abs().max()
        return weights_from(layer, torch.where(is_dead, solution_of(layer), solution / scale.where(~is_dead, 1.0)))
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    new = solution[:-1].T.reshape(weight.shape).to(weight.dtype).contiguous()
    return new, None if bias is None else torch.zeros_like(bias)


def held_solution(model: nn.Module, name: str, joint: Joint, solution: Tensor) -> Tensor:
    """Returns the map [fan-in (+ 1), outputs] that the layer computes with a solution as its weights, in float64."""
    weight, bias = unfolded_weights(model, name, joint, solution)
    if joint.norm is not None:
        return solution.to(weight.dtype).double()
    scale, _ = tail_of(model, name, joint)
    parts = [matrix_of(model.get_submodule(name), weight), *([] if bias is None else [bias.double()[None]])]
    return torch.cat(parts) * scale


def unfolded_norm(model: nn.Module, norm_name: str, solution: Tensor, rows: HasMoments) -> dict[str, Tensor]:
    """Returns the BatchNorm's new weights and statistics by name.

    The statistics are those of the layer's new outputs, so that they can be estimated again and training can go on.
    """
    norm = model.get_submodule(norm_name)
    linear = torch.cat([solution[:-1], torch.zeros_like(solution[-1:])])
    mean, variance = rows.output_moments(linear)
    values = {"running_mean": mean, "running_var": variance, "bias": solution[-1] + mean}
    values["weight"] = (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]  # every BatchNorm has eps
    return {name: value.to(norm.get_parameter("weight").dtype) for name, value in values.items()}
