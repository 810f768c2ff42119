"""Computes the importance `obs`: channels are eliminated one by one, always the one whose loss a refit repairs best.

Structured Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992; in the form of ZipLM, Kurtic et al., arXiv 2302.04089). X
are the rows that the consumer reads, W its weights, and H = (X^T X)^-1. When the inputs s are removed and the others
are refitted, the squared error rises by tr(W_s^T (H_ss)^-1 W_s). The score of a channel is the error that is left when
the channel is removed, so that a narrower layer keeps a part of what a wider one keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.groups import ChannelGroup
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.repair.layers import can_be_fitted, matrix_of, rows_of, without_padding

DAMPING = 1e-3  # relative to the mean diagonal of X^T X

MOST_ROUNDS = 128  # rounds of elimination; wider groups lose several channels per round


def elimination_scores(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs]
) -> dict[str, Tensor]:
    """Returns scores [units, channels of each] of the groups whose last consumer can be refitted.

    In attention, heads are eliminated as a whole, and the channels of all heads one by one; the score of a head is
    divided among its channels in proportion to theirs.
    """
    refittable = [group for group in groups if can_be_fitted(model.get_submodule(group.reader.module))]
    grams = _grams(model, {group.reader.module for group in refittable}, batches)
    return {group.name: _scores(model, group, grams[group.reader.module]) for group in refittable}


def _grams(model: nn.Module, layers: set[str], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """Returns X^T X of the rows that each layer reads, with a column of ones at the end, in float64."""
    points = {ActivationPoint(layer, side) for layer in layers for side in ("input", "output")}
    total: dict[str, Tensor] = {}
    entries: dict[str, Tensor] = {}

    def note(point: ActivationPoint, value: Tensor) -> None:
        """Adds the rows of one call; a layer may be called several times."""
        name = point.module
        if point.side == "input":
            entries[name] = value
            return
        rows = rows_of(model.get_submodule(name), entries.pop(name), value.shape, with_offset=True).inputs.double()
        (rows,) = without_padding(rows)
        total[name] = rows.T @ rows + total.get(name, 0.0)

    with torch.no_grad(), watched(model, points, note):
        for inputs in batches if layers else ():
            model(*inputs)
    return total


def _scores(model: nn.Module, group: ChannelGroup, gram: Tensor) -> Tensor:
    layer = model.get_submodule(group.reader.module)
    weights = matrix_of(layer, layer.get_parameter("weight"))
    weights = torch.cat([weights, weights.new_zeros(1, weights.shape[1])])
    per_index = (len(weights) - 1) // group.reader.size  # positions in the kernel of a convolution
    ridge = DAMPING * gram.diagonal().mean().clamp(min=1e-30)
    inverse = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    places = torch.tensor(group.reader.places, device=gram.device)  # [units, indices of each]

    def inputs_of(parts: Tensor) -> Tensor:
        return (parts[..., None] * per_index + torch.arange(per_index, device=gram.device)).flatten(1)

    whole = eliminated(inverse, weights, inputs_of(places)).cpu()
    if group.head_dim == 1 or places.shape[1] % group.head_dim:
        return whole[:, None].expand(-1, group.head_dim) / group.head_dim
    channels = places.reshape(group.num_units, -1, group.head_dim).movedim(-1, 1).flatten(0, 1)
    single = eliminated(inverse, weights, inputs_of(channels)).cpu()
    shares = single.reshape(group.num_units, group.head_dim).clamp(min=1e-30)
    return whole[:, None] * shares / shares.sum(1, keepdim=True)


def eliminated(inverse: Tensor, weights: Tensor, parts: Tensor) -> Tensor:
    """Returns the error [parts] that is left once a part and all parts before it are removed, in float64.

    inverse: (X^T X)^-1 [inputs, inputs], damped.
    weights: weights of the consumer [inputs, outputs].
    parts: inputs that are removed together [parts, indices of each]; inputs in no part stay.
    """
    scores = weights.new_zeros(len(parts))
    remaining = torch.arange(len(parts), device=parts.device)
    at_once = -(-len(parts) // MOST_ROUNDS)
    total = weights.new_zeros(())
    while len(remaining):
        inputs_left = parts[remaining]
        blocks = inverse[inputs_left[:, :, None], inputs_left[:, None, :]]
        rises = (weights[inputs_left] * torch.linalg.solve(blocks, weights[inputs_left])).sum((1, 2)).clamp(min=0.0)
        order = rises.argsort(stable=True)[:at_once]
        scores[remaining[order]] = total + rises[order].cumsum(0)
        total = scores[remaining[order[-1]]]
        gone = inputs_left[order].flatten()
        solved = torch.linalg.solve(inverse[gone][:, gone], torch.cat([weights[gone], inverse[gone]], dim=1))
        outputs = weights.shape[1]
        weights, inverse = (
            weights - inverse[:, gone] @ solved[:, :outputs],
            inverse - inverse[:, gone] @ solved[:, outputs:],
        )
        stays = torch.ones(len(remaining), dtype=torch.bool, device=remaining.device)
        stays[order] = False
        remaining = remaining[stays]
    return scores
