"""Scores how much each channel of a group matters, as [units, channels of each]; higher is more important."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.channels.groups import ChannelGroup, Slot
from toolkit.channels.layers import batch_norm_scale, channel_dim, input_weights, output_weights
from toolkit.hooks.modes import all_trained
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.repair.layers import without_padding
from toolkit.stages.channel_prune.elimination import elimination_scores
from toolkit.tasks.task import Batch, Task

NEWTON_RIDGE = 1e-2  # relative to the mean diagonal


def score_groups(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    importance: str,
    task: Task,
    batches: Callable[[], Iterable[Batch]],
    seed: int,
) -> dict[str, Tensor]:
    """Returns the scores of all groups by name.

    importance: name of the ranking, as in the settings of the stage.
    batches: returns the calibration batches, for rankings that need data.

    Raises:
        StageError: a group has no BatchNorm to rank it by, there is no data, or a score is not a finite number.
    """
    if importance == "random":
        scores = {group.name: _random(group, seed) for group in groups}
    elif importance in ("l1", "l2"):
        scores = {group.name: weight_norm(model, group, int(importance[1])) for group in groups}
    elif importance == "bn_gamma":
        scores = {group.name: _bn_gamma(model, group) for group in groups}
    elif importance == "taylor":
        scores = _taylor(model, groups, task, batches())
    else:
        scores = FROM_INPUTS[importance](model, groups, [batch.inputs for batch in batches()])
    broken = [name for name, values in scores.items() if not bool(values.isfinite().all())]
    if broken:
        raise StageError(
            f"importance {importance!r} of {broken[0]} is not a finite number; check the model and its data"
        )
    return scores


def by_unit(values: Tensor, slot: Slot, group: ChannelGroup) -> Tensor:
    """Returns the values of the slot's indices as [units, channels of each]; several indices of a channel are added."""
    size = group.head_dim
    rows = torch.stack([values[list(places)] for places in slot.places])  # [units, indices of each]
    if rows.shape[1] % size:
        return rows.sum(1, keepdim=True).expand(-1, size) / size
    return rows.reshape(len(rows), -1, size).sum(1)


def activation_energy(model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """Returns the mean square of each channel at its last consumer, over the calibration data."""
    energy, count = _moments(model, groups, batches, lambda rows: rows.square().sum(0))
    return {group.name: by_unit(energy[group.name] / count[group.name], group.reader, group) for group in groups}


def newton(model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """Returns the mask z that one Newton step gives for the squared error of the consumer, after Numerical Pruning.

    The consumer is the last layer that reads the group. With X the channels that it reads and W its weights,
    || X W - X diag(z) W ||^2 = (1 - z)^T H (1 - z), with H = (X^T X) * (W W^T), element by element. Under a penalty on
    the sum of z, Newton's method reaches the minimum of this quadratic form in one step, where 1 - z is proportional to
    H^-1 1. The score is z, up to scale and shift (Shen et al., arXiv 2412.12441).
    """
    gram, _ = _moments(model, groups, batches, lambda rows: rows.T @ rows)
    scores = {}
    for group in groups:
        weights = input_weights(model.get_submodule(group.reader.module)).detach().double().flatten(1)
        hessian = gram[group.name] * (weights @ weights.T)
        ridge = NEWTON_RIDGE * hessian.diagonal().mean().clamp(min=1e-30)
        hessian = hessian + ridge * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
        cut_share = torch.linalg.solve(hessian, torch.ones_like(hessian[0]))
        scores[group.name] = by_unit(-cut_share / cut_share.abs().max(), group.reader, group)
    return scores


def wanda(model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """Returns the mean square of each channel times the squared norm of its weights in its last consumer.

    This is the squared score of Wanda (Sun et al., arXiv 2306.11695), summed over the weights of a channel.
    """
    energy, count = _moments(model, groups, batches, lambda rows: rows.square().sum(0))
    scores = {}
    for group in groups:
        weights = input_weights(model.get_submodule(group.reader.module)).detach().double().flatten(1)
        values = energy[group.name] / count[group.name] * weights.square().sum(1)
        scores[group.name] = by_unit(values, group.reader, group)
    return scores


def obs(model: nn.Module, groups: Sequence[ChannelGroup], batches: Sequence[Inputs]) -> dict[str, Tensor]:
    """Returns `elimination_scores`, or `wanda` for groups whose last consumer cannot be refitted."""
    scores = elimination_scores(model, groups, batches)
    others = [group for group in groups if group.name not in scores]
    return scores | (wanda(model, others, batches) if others else {})


FROM_INPUTS: Final = {"activation": activation_energy, "newton": newton, "wanda": wanda, "obs": obs}


def _moments(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs], of: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Returns two mappings by the name of a group: sums over the data, and numbers of rows.

    of: maps rows [positions, channels] that the last consumer of a group reads, in float64, to what is summed.
    """
    points = {group.name: ActivationPoint(group.reader.module, "input") for group in groups}
    total: dict[str, Tensor] = {}
    count: dict[str, int] = {}

    def note(point: ActivationPoint, value: Tensor) -> None:
        """Adds the rows of one call; a layer may be called several times."""
        rows = value.movedim(channel_dim(model.get_submodule(point.module)), -1).flatten(0, -2).double()
        (rows,) = without_padding(rows)
        for name in (name for name, group_point in points.items() if group_point == point):
            total[name] = of(rows) + total.get(name, 0.0)
            count[name] = count.get(name, 0) + len(rows)

    with torch.no_grad(), watched(model, set(points.values()), note):
        for inputs in batches:
            model(*inputs)
    if not count and groups:
        raise StageError(
            "an importance from activations needs calibration data, and the task's split 'calibration' is empty"
        )
    return total, count


@torch.no_grad()
def weight_norm(model: nn.Module, group: ChannelGroup, power: int) -> Tensor:
    """Returns the L1 (power 1) or squared L2 (power 2) norm of all weights that write or read each channel."""
    return _over_weights(model, group, lambda weight: weight.double().abs().pow(power))


def _over_weights(model: nn.Module, group: ChannelGroup, of: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(group.num_units, group.head_dim, dtype=torch.float64)
    for slot in group.slots:
        if slot.role in ("out", "in"):
            weights = (output_weights if slot.role == "out" else input_weights)(model.get_submodule(slot.module))
            values = of(weights).flatten(1).sum(1).cpu()
            total += by_unit(values, slot, group)
    return total


def _taylor(
    model: nn.Module, groups: Sequence[ChannelGroup], task: Task, batches: Iterable[Batch]
) -> dict[str, Tensor]:
    """Returns the first-order Taylor importance for the task's loss on this data.

    It is the sum over batches and layers of | sum of gradient * weight | over the layer's weights of a channel.
    """
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    totals = {group.name: torch.zeros(group.num_units, group.head_dim, dtype=torch.float64) for group in groups}
    is_empty = True
    try:
        all_trained(model)
        for batch in batches:
            is_empty = False
            model.zero_grad(set_to_none=True)
            with torch.enable_grad():
                task.loss(model(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
            for group in groups:
                totals[group.name] += _saliency(model, group)
    finally:
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(flags[name])
    if is_empty:
        raise StageError("importance 'taylor' needs calibration data, and the task's split 'calibration' is empty")
    return totals


@torch.no_grad()
def _saliency(model: nn.Module, group: ChannelGroup) -> Tensor:
    total = torch.zeros(group.num_units, group.head_dim, dtype=torch.float64)
    for slot in group.slots:
        weight = getattr(model.get_submodule(slot.module), "weight", None)
        if slot.role not in ("out", "in") or not isinstance(weight, Tensor) or weight.grad is None:
            continue
        layer = model.get_submodule(slot.module)
        view = output_weights if slot.role == "out" else input_weights
        product = view(layer).double() * _gradient(layer, view)
        total += by_unit(product.flatten(1).sum(1).abs().cpu(), slot, group)
    return total


def _gradient(layer: nn.Module, view: Callable[[nn.Module], Tensor]) -> Tensor:
    """Returns the gradient of the layer's weight in the layout of `view(layer)`."""
    weight = layer.weight
    assert isinstance(weight, Tensor) and weight.grad is not None
    is_swapped = view(layer).shape != weight.shape or view(layer).stride() != weight.stride()
    return (weight.grad.transpose(0, 1) if is_swapped else weight.grad).double()


def _bn_gamma(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Returns | scale | of the BatchNorm layers that the channels pass (Network Slimming, Liu et al., ICCV 2017)."""
    total: Tensor | None = None
    for slot in group.slots:
        scale = batch_norm_scale(model.get_submodule(slot.module))
        if slot.role == "through" and scale is not None:
            values = by_unit(scale.detach().abs().double().cpu(), slot, group)
            total = values if total is None else total + values
    if total is None:
        raise StageError(
            f"importance bn_gamma: the channels of {group.name} pass no BatchNorm layer; "
            "exclude this group, or choose another importance"
        )
    return total


def _random(group: ChannelGroup, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {group.name}".encode()))
    return torch.rand(group.num_units, group.head_dim, generator=generator, dtype=torch.float64)
