"""What a block is worth: scores of the model without it, on training data (split "score")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from toolkit.hooks.passes import Meter
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.fit import Fitted
from toolkit.repair.joint import PLAIN
from toolkit.stages.block_drop.candidates import Variant, applied
from toolkit.stages.context import StageContext
from toolkit.stand_ins.contract import StandIn
from toolkit.tasks.evaluate import evaluate, mean_loss
from toolkit.tasks.task import Task

HIGHER_IS_BETTER = ("task_metric",)  # of the other criteria, the lowest score is the best


def as_loss(score: float, criterion: str) -> float:
    """Lower is better, whatever the criterion."""
    return -score if criterion in HIGHER_IS_BETTER else score


def model_score(model: nn.Module, task: Task, criterion: str, context: StageContext, limit: int | None) -> float:
    """`task_metric` or `loss` of a candidate's model, over `limit` examples."""
    if criterion == "task_metric":
        return evaluate(task, model, "score", limit=limit).value
    return mean_loss(model, context.batches(task, "score", limit=limit), task.loss)


def random_scores(blocks: Sequence[str], seed: int, number: int) -> dict[str, float]:
    """The control: draws that are fixed by the seed and the number of the round."""
    draws = np.random.default_rng([seed, number]).random(len(blocks))
    return dict(zip(blocks, draws.tolist(), strict=True))


def block_mse(
    model: nn.Module,
    reference: nn.Module,
    variants: Sequence[Variant],
    task: Task,
    context: StageContext,
    meter: Meter,
) -> dict[str, float]:
    """Mean squared difference between the stream where each block was here and what comes out of it in the reference.

    The stream is seen after the candidate's repair. One pass of each model serves all blocks whose repair is a linear
    layer's that is added to the stream: the stream is known from the layer's input and output. The others run alone.
    """
    apart = [one for one in variants if one.fitted is not None and not _is_plain(model, one.fitted)]
    scores = {one.block: block_mse_alone(model, reference, one, task, context) for one in apart}
    together = [one for one in variants if one.block not in scores]
    scores |= _together(model, reference, together, task, context, meter) if together else {}
    return {one.block: scores[one.block] for one in variants}


def _is_plain(model: nn.Module, fitted: Fitted) -> bool:
    """Whether the stream after a repair is known from the layer's input and output alone."""
    return isinstance(model.get_submodule(fitted.site.layer), nn.Linear) and fitted.site.joint == PLAIN


def _together(
    model: nn.Module,
    reference: nn.Module,
    variants: Sequence[Variant],
    task: Task,
    context: StageContext,
    meter: Meter,
) -> dict[str, float]:
    """`block_mse` of candidates that refit no layer, or one that is plain: one pass of each model for all of them."""
    blocks = [one.block for one in variants]
    layers = {one.fitted.site.layer for one in variants if one.fitted is not None}
    points = {ActivationPoint(block, "input") for block in blocks}
    points |= {ActivationPoint(layer, side) for layer in layers for side in ("input", "output")}
    totals, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)
    for batch in context.batches(task, "score"):
        seen = capture(model, batch.inputs, points)
        goals = capture(reference, batch.inputs, {ActivationPoint(block, "output") for block in blocks})
        for one in variants:
            stream = seen[ActivationPoint(one.block, "input")]
            if one.fitted is not None:
                stream = _repaired(stream, one.fitted, seen)
                meter.layers += len(batch.inputs[0])
            if one.stand_in is not None:
                stream = _carried(stream, one.stand_in)
            totals[one.block] += _squares(stream, goals[ActivationPoint(one.block, "output")])
            counts[one.block] += stream.numel()
    return {block: totals[block] / counts[block] for block in blocks}


def block_mse_alone(
    model: nn.Module, reference: nn.Module, variant: Variant, task: Task, context: StageContext
) -> float:
    """`block_mse` of one block, with its repair: the naive way."""
    end = ActivationPoint(variant.block, "output")
    total, count = 0.0, 0
    with applied(model, variant):
        for batch in context.batches(task, "score"):
            stream = capture(model, batch.inputs, [end])[end]
            leaving = capture(reference, batch.inputs, [end])[end]
            total += _squares(stream, leaving)
            count += stream.numel()
    return total / count


@torch.no_grad()
def _carried(stream: Tensor, stand_in: StandIn) -> Tensor:
    return stand_in.carry(stream)


def _squares(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).square().sum())


def _repaired(entering: Tensor, fitted: Fitted, seen: Mapping[ActivationPoint, Tensor]) -> Tensor:
    layer = fitted.site.layer
    rest = entering - seen[ActivationPoint(layer, "output")]
    return rest + functional.linear(seen[ActivationPoint(layer, "input")], fitted.weight, fitted.bias)
