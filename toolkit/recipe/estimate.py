"""A rough estimate of how long a recipe takes, from the task's card. Nothing here imports torch."""

from __future__ import annotations

import math

from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.cards import TaskCard, TaskCosts


def estimate_s(recipe: Recipe, card: TaskCard) -> float | None:
    """Seconds on 2 idle CPU cores. Later steps are priced like the dense model, so this is rather too long.

    None where the card cannot say.
    """
    if card.costs is None or card.num_blocks is None:
        return None
    costs, blocks = card.costs, card.num_blocks
    total_s = costs.start_s + _measure_s(recipe.measure, costs)
    for stage in recipe.stages:
        if isinstance(stage, BlockDrop):
            rounds = _rounds(stage, blocks, card.num_blocks)
            evaluations = sum(_evaluations(stage, left) for left in range(blocks - rounds + 1, blocks + 1))
            total_s += evaluations * costs.score_pass_s + costs.prune_s
            blocks -= rounds
        elif isinstance(stage, ChannelPrune):
            total_s += costs.prune_s
        elif isinstance(stage, (Recover, Align)):
            validations = math.ceil(stage.max_steps / stage.validate_every)
            total_s += stage.max_steps * costs.recover_step_s + validations * costs.evaluate_s
        total_s += _measure_s(recipe.measure, costs)
    return total_s


def duration_text(seconds: float) -> str:
    """`"about 40 s"`, `"about 6 min"`."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _rounds(stage: BlockDrop, blocks: int, dense_blocks: int) -> int:
    """Blocks to drop; for a MACs target, as if the blocks held all of the MACs."""
    if stage.blocks is not None:
        return min(len(stage.blocks), blocks)
    if stage.num_blocks is not None:
        return min(stage.num_blocks, blocks)
    assert stage.macs_ratio is not None
    return min(max(blocks - math.floor(stage.macs_ratio * dense_blocks), 0), blocks)


def _evaluations(stage: BlockDrop, blocks: int) -> float:
    """What scoring one round is worth, in evaluations of the whole scoring set (see `block_drop.prefix`, `racing`)."""
    if stage.criterion == "random" or stage.blocks is not None:
        return 0.0
    naive = blocks if stage.verify_selection else 0.0
    if stage.criterion == "block_mse":
        return naive + 2.0
    scored = blocks / 2 + 1 if stage.reuse_prefix else blocks
    return naive + scored * (0.4 if stage.racing == "successive_halving" else 1.0)


def _measure_s(measure: Measure, costs: TaskCosts) -> float:
    """Every split once, and the latency of this model and the dense one in turns."""
    examples = sum(measure.batch_sizes) * (measure.repeats + measure.warmup) * 2
    return len(measure.splits) * costs.evaluate_s + examples * costs.forward_s
