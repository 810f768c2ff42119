"""Importance `obs`: channels are eliminated one after another, each time the one whose loss a repair makes good best.

Structured Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992; in the form of ZipLM, Kurtic et al., arXiv 2302.04089).
With X the rows that the consumer reads, W its weights and H = (X^T X)^-1, the squared error that is left after the
inputs s are gone and the others are refitted rises by tr(W_s^T (H_ss)^-1 W_s). The score of a channel is the error that
is left when the channel goes, so a narrower layer keeps a part of what a wider one keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from toolkit.channels.groups import ChannelGroup
from toolkit.hooks.points import ActivationPoint, Inputs, watched
from toolkit.repair.layers import can_be_fitted, matrix_of, rows_of, without_padding

DAMPING = 1e-3  # of the mean diagonal of X^T X

MOST_ROUNDS = 128  # of elimination: wider groups lose several channels per round


def elimination_scores(
    model: nn.Module, groups: Sequence[ChannelGroup], batches: Iterable[Inputs]
) -> dict[str, Tensor]:
    """Returns scores [units, channels of each] of the groups whose last consumer can be refitted.

    Within an attention, heads are eliminated as wholes, and the channels of all heads one by one; the score of a head
    is shared out over its channels in proportion to theirs.
    """
    own = [group for group in groups if can_be_fitted(model.get_submodule(group.reader.module))]
    grams = _grams(model, {group.reader.module for group in own}, batches)
    return {group.name: _scores(model, group, grams[group.reader.module]) for group in own}


def _grams(model: nn.Module, layers: set[str], batches: Iterable[Inputs]) -> dict[str, Tensor]:
    """X^T X of the rows that each layer reads, a column of ones at the end, in float64."""
    points = {ActivationPoint(layer, side) for layer in layers for side in ("input", "output")}
    total: dict[str, Tensor] = {}
    entries: dict[str, Tensor] = {}

    def note(point: ActivationPoint, value: Tensor) -> None:
        """Layers may be called more than once, and each call counts."""
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
    per_index = (len(weights) - 1) // group.reader.size  # the places of a convolution's kernel
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
    """Returns the error [parts] that is left once a part and all that went before it are gone, in float64.

    inverse: (X^T X)^-1 [inputs, inputs], damped; weights [inputs, outputs]; parts [parts, indices of each]: the inputs
    that go together. Inputs in no part stay.
    """
    scores = weights.new_zeros(len(parts))
    left = torch.arange(len(parts), device=parts.device)
    at_once = -(-len(parts) // MOST_ROUNDS)
    total = weights.new_zeros(())
    while len(left):
        own = parts[left]
        blocks = inverse[own[:, :, None], own[:, None, :]]
        rises = (weights[own] * torch.linalg.solve(blocks, weights[own])).sum((1, 2)).clamp(min=0.0)
        order = rises.argsort(stable=True)[:at_once]
        scores[left[order]] = total + rises[order].cumsum(0)
        total = scores[left[order[-1]]]
        gone = own[order].flatten()
        solved = torch.linalg.solve(inverse[gone][:, gone], torch.cat([weights[gone], inverse[gone]], dim=1))
        outputs = weights.shape[1]
        weights, inverse = (
            weights - inverse[:, gone] @ solved[:, :outputs],
            inverse - inverse[:, gone] @ solved[:, outputs:],
        )
        stays = torch.ones(len(left), dtype=torch.bool, device=left.device)
        stays[order] = False
        left = left[stays]
    return scores
