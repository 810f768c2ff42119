"""What a block is worth: scores of the model without it, on training data (split "score")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from toolkit.hooks.passes import Meter
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.fit import Fitted, installed
from toolkit.repair.joint import PLAIN
from toolkit.stages.context import StageContext
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
    blocks: Sequence[str],
    repairs: Mapping[str, Fitted],
    task: Task,
    context: StageContext,
    meter: Meter,
) -> dict[str, float]:
    """Mean squared difference between what goes into each block here and what comes out of it in the reference.

    What goes in is seen after the candidate's repair. One pass of each model serves all blocks whose repair is a linear
    layer's that is added to the stream: the stream is known from the layer's input and output. The others run alone.
    """
    apart = {block: one for block, one in repairs.items() if not _is_plain(model, one)}
    alone = {block: block_mse_alone(model, reference, block, one, task, context) for block, one in apart.items()}
    together = [block for block in blocks if block not in alone]
    repairs = {block: one for block, one in repairs.items() if block not in alone}
    shared = _together(model, reference, together, repairs, task, context, meter) if together else {}
    return {block: (alone | shared)[block] for block in blocks}


def _is_plain(model: nn.Module, fitted: Fitted) -> bool:
    """Whether the stream after a repair is known from the layer's input and output alone."""
    return isinstance(model.get_submodule(fitted.site.layer), nn.Linear) and fitted.site.joint == PLAIN


def _together(
    model: nn.Module,
    reference: nn.Module,
    blocks: Sequence[str],
    repairs: Mapping[str, Fitted],
    task: Task,
    context: StageContext,
    meter: Meter,
) -> dict[str, float]:
    """`block_mse` of blocks without a repair, or with one that is plain: one pass of each model for all of them."""
    entries = {ActivationPoint(block, "input") for block in blocks}
    layers = {ActivationPoint(repairs[block].site.layer, side) for block in repairs for side in ("input", "output")}
    totals, counts = dict.fromkeys(blocks, 0.0), dict.fromkeys(blocks, 0)
    for batch in context.batches(task, "score"):
        seen = capture(model, batch.inputs, entries | layers)
        goals = capture(reference, batch.inputs, {ActivationPoint(block, "output") for block in blocks})
        for block in blocks:
            entering = seen[ActivationPoint(block, "input")]
            if block in repairs:
                entering = _repaired(entering, repairs[block], seen)
                meter.layers += len(batch.inputs[0])
            totals[block] += _squares(entering, goals[ActivationPoint(block, "output")])
            counts[block] += entering.numel()
    return {block: totals[block] / counts[block] for block in blocks}


def block_mse_alone(
    model: nn.Module, reference: nn.Module, block: str, fitted: Fitted | None, task: Task, context: StageContext
) -> float:
    """`block_mse` of one block, with its repair installed: the naive way."""
    before, after = ActivationPoint(block, "input"), ActivationPoint(block, "output")
    total, count = 0.0, 0
    with installed(model, fitted):
        for batch in context.batches(task, "score"):
            entering = capture(model, batch.inputs, [before])[before]
            leaving = capture(reference, batch.inputs, [after])[after]
            total += _squares(entering, leaving)
            count += entering.numel()
    return total / count


def _squares(first: Tensor, second: Tensor) -> float:
    return float((first.double() - second.double()).square().sum())


def _repaired(entering: Tensor, fitted: Fitted, seen: Mapping[ActivationPoint, Tensor]) -> Tensor:
    layer = fitted.site.layer
    rest = entering - seen[ActivationPoint(layer, "output")]
    return rest + functional.linear(seen[ActivationPoint(layer, "input")], fitted.weight, fitted.bias)
