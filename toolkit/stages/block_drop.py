"""Progressive Block Drop (Chen et al., CVPR 2025, arXiv 2503.16916): remove residual blocks, the least important first.

Each round scores every remaining block by removing it alone, on training data, after its closed-form repair if the
stage has it; drops the best one; starts again.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from toolkit.blocks import block_dropped, drop_block, find_blocks
from toolkit.errors import StageError
from toolkit.recipe import BlockDrop
from toolkit.stages.context import Detail, StageContext
from toolkit.stages.repair import Fitted, Inputs, Point, capture, fit_layers, install, installed
from toolkit.stages.sites import depth_site, execution_order
from toolkit.task import Split, Task


@dataclass(frozen=True)
class Candidate:
    """A block that could go, the repair that would follow, and its score."""

    block: str
    fitted: Fitted | None
    score: float


def apply_block_drop(
    model: nn.Module, task: Task, config: BlockDrop, context: StageContext
) -> tuple[nn.Module, Detail]:
    """Drop blocks until `num_blocks` are gone or the model is at `macs_ratio` of the unmodified MACs.

    Raises:
        StageError: there are too few blocks, the ratio cannot be met, or a score is not a finite number.
    """
    inputs = context.example_inputs(task)
    names = find_blocks(model, inputs)
    _check_target(names, config)
    reference = copy.deepcopy(model)
    dropped: list[str] = []
    rounds: list[Detail] = []
    while not _reached(model, config, context, len(dropped)):
        remaining = [name for name in names if name not in dropped]
        if len(remaining) == 1:
            raise StageError(
                f"macs_ratio {config.macs_ratio} cannot be met by dropping blocks: with one block left "
                f"({remaining[0]}) the model is at {context.macs_ratio(model):.3f}; ask for more, or add channel_prune"
            )
        candidates = _score_all(model, reference, remaining, task, config, context, len(rounds) + 1)
        best = min(candidates, key=lambda candidate: _loss_like(candidate.score, config))
        if best.fitted is not None:
            install(model, best.fitted)
        drop_block(model, best.block)
        dropped.append(best.block)
        rounds.append(_round_detail(candidates, best))
        context.console.line(f"  round {len(rounds)}: dropped {best.block} ({config.criterion} {best.score:.4g})")
    return model, {
        "criterion": config.criterion,
        "higher_is_better": config.criterion == "task_metric",
        "blocks": names,
        "rounds": rounds,
        "dropped": dropped,
        "remaining": [name for name in names if name not in dropped],
        "macs_ratio": context.macs_ratio(model),
    }


def _check_target(names: list[str], config: BlockDrop) -> None:
    if not names:
        raise StageError("the model has no residual block that keeps its input's shape, so none can be dropped")
    if config.num_blocks is not None and config.num_blocks >= len(names):
        raise StageError(
            f"num_blocks is {config.num_blocks}, but the model has {len(names)} blocks ({', '.join(names)}) "
            f"and one must stay: at most {len(names) - 1}"
        )


def _reached(model: nn.Module, config: BlockDrop, context: StageContext, num_dropped: int) -> bool:
    if config.num_blocks is not None:
        return num_dropped == config.num_blocks
    assert config.macs_ratio is not None
    return context.macs_ratio(model) <= config.macs_ratio


def _loss_like(score: float, config: BlockDrop) -> float:
    return -score if config.criterion == "task_metric" else score


def _score_all(
    model: nn.Module,
    reference: nn.Module,
    remaining: list[str],
    task: Task,
    config: BlockDrop,
    context: StageContext,
    number: int,
) -> list[Candidate]:
    """Every remaining block, removed alone; the block with the lowest loss (or highest metric) is the one to go."""
    repairs = _repairs(model, reference, remaining, task, config, context)
    candidates = []
    with context.console.progress(f"block_drop round {number}: scoring {len(remaining)} blocks", len(remaining)) as bar:
        for block in remaining:
            fitted = repairs.get(block)
            score = _score(model, reference, block, fitted, task, config, context)
            if not math.isfinite(score):
                raise StageError(
                    f"{config.criterion} without block {block} is {score}; the model or its data is broken"
                )
            candidates.append(Candidate(block, fitted, score))
            bar.advance()
    return candidates


def _repairs(
    model: nn.Module,
    reference: nn.Module,
    remaining: list[str],
    task: Task,
    config: BlockDrop,
    context: StageContext,
) -> dict[str, Fitted]:
    """The repair of each candidate, from one pass over the calibration data; blocks with no absorber have none."""
    if config.repair == "none":
        return {}
    inputs = context.example_inputs(task)
    order = execution_order(model, inputs)
    sites = {block: depth_site(model, block, inputs, order) for block in remaining}
    found = {block: site for block, site in sites.items() if site is not None}
    fitted = fit_layers(
        model,
        reference,
        list(found.values()),
        _inputs(task, "calibration", context),
        _inputs(task, "holdout", context),
    )
    return dict(zip(found, fitted, strict=True))


def _inputs(task: Task, split: Split, context: StageContext) -> Iterator[Inputs]:
    return (batch.inputs for batch in context.batches(task, split))


def _score(
    model: nn.Module,
    reference: nn.Module,
    block: str,
    fitted: Fitted | None,
    task: Task,
    config: BlockDrop,
    context: StageContext,
) -> float:
    with installed(model, fitted):
        if config.criterion == "block_mse":
            return _block_mse(model, reference, block, task, context)
        with block_dropped(model, block):
            if config.criterion == "task_metric":
                return task.evaluate(model, "score").value
            return _mean_loss(model, task, context)


def _block_mse(model: nn.Module, reference: nn.Module, block: str, task: Task, context: StageContext) -> float:
    """Mean squared difference between what goes into the block here and what came out of it before the stage."""
    total, count = 0.0, 0
    for batch in context.batches(task, "score"):
        entering = capture(model, batch.inputs, [Point(block, "input")])[Point(block, "input")]
        leaving = capture(reference, batch.inputs, [Point(block, "output")])[Point(block, "output")]
        total += float((entering.double() - leaving.double()).square().sum())
        count += entering.numel()
    return total / count


@torch.no_grad()
def _mean_loss(model: nn.Module, task: Task, context: StageContext) -> float:
    total, count = 0.0, 0
    for batch in context.batches(task, "score"):
        size = len(batch.inputs[0])
        total += float(task.loss(model(*batch.inputs), batch.targets)) * size
        count += size
    return total / count


def _round_detail(candidates: list[Candidate], best: Candidate) -> Detail:
    return {
        "scores": {candidate.block: candidate.score for candidate in candidates},
        "dropped": best.block,
        "repair": None if best.fitted is None else best.fitted.detail(),
    }
