"""Scores blocks by the model without them, on training data (split "score")."""

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

HIGHER_IS_BETTER = ("task_metric",)  # for other criteria, lower is better


def as_loss(score: float, criterion: str) -> float:
    """Returns a score of which lower is better, whatever the criterion."""
    return -score if criterion in HIGHER_IS_BETTER else score


def model_score(model: nn.Module, task: Task, criterion: str, context: StageContext, limit: int | None) -> float:
    """Returns `task_metric` or `loss` of the model on the first `limit` examples; None is all."""
    if criterion == "task_metric":
        return evaluate(task, model, "score", limit=limit).value
    return mean_loss(model, context.batches(task, "score", limit=limit), task.loss)


def random_scores(blocks: Sequence[str], seed: int, number: int) -> dict[str, float]:
    """Returns random scores that depend on the seed and the number of the round only (a control)."""
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
    """Returns, for each block, the mean squared error of the stream behind it when the block is dropped.

    The goal is the output of the block in the reference, and the stream is that after the repair of the candidate. One
    pass of each model serves all blocks without a refitted layer or with a linear one that is added to the stream,
    because its input and output tell the new stream. Other candidates run alone.
    """
    apart = [variant for variant in variants if variant.fitted is not None and not _is_plain(model, variant.fitted)]
    scores = {variant.block: block_mse_alone(model, reference, variant, task, context) for variant in apart}
    together = [variant for variant in variants if variant.block not in scores]
    scores |= _together(model, reference, together, task, context, meter) if together else {}
    return {variant.block: scores[variant.block] for variant in variants}


def _is_plain(model: nn.Module, fitted: Fitted) -> bool:
    """Says whether the input and output of a refitted layer tell the stream after the repair."""
    return isinstance(model.get_submodule(fitted.site.layer), nn.Linear) and fitted.site.joint == PLAIN


def _together(
    model: nn.Module,
    reference: nn.Module,
    variants: Sequence[Variant],
    task: Task,
    context: StageContext,
    meter: Meter,
) -> dict[str, float]:
    """Returns `block_mse` of all candidates whose stream is known from one pass of each model."""
    blocks = [variant.block for variant in variants]
    layers = {variant.fitted.site.layer for variant in variants if variant.fitted is not None}
    points = {ActivationPoint(block, "input") for block in blocks}
    points |= {ActivationPoint(layer, side) for layer in layers for side in ("input", "output")}
    totals, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)
    for batch in context.batches(task, "score"):
        seen = capture(model, batch.inputs, points)
        goals = capture(reference, batch.inputs, {ActivationPoint(block, "output") for block in blocks})
        for variant in variants:
            stream = seen[ActivationPoint(variant.block, "input")]
            if variant.fitted is not None:
                stream = _repaired(stream, variant.fitted, seen)
                meter.layers += len(batch.inputs[0])
            if variant.stand_in is not None:
                stream = _carried(stream, variant.stand_in)
            totals[variant.block] += _squares(stream, goals[ActivationPoint(variant.block, "output")])
            counts[variant.block] += stream.numel()
    return {block: totals[block] / counts[block] for block in blocks}


def block_mse_alone(
    model: nn.Module, reference: nn.Module, variant: Variant, task: Task, context: StageContext
) -> float:
    """Returns `block_mse` of one block from passes with its repair, without any shared computation."""
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
