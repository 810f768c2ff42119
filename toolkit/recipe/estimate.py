"""Estimates from the task's card how long a recipe takes. Nothing here imports torch."""

from __future__ import annotations

from toolkit.recipe.recipe import Measure, Recipe
from toolkit.tasks.contract import TaskCard, TaskCosts


def estimate_s(recipe: Recipe, card: TaskCard) -> float | None:
    """Returns about how many seconds a recipe takes on 2 idle CPU cores, or None if the card holds no costs.

    Later steps are counted like steps of the dense model, so the estimate is rather too long.
    """
    if card.costs is None or card.num_blocks is None:
        return None
    costs, blocks_left = card.costs, card.num_blocks
    total_s = costs.start_s + _measure_s(recipe.measure, costs)
    for stage in recipe.stages:
        total_s += stage.estimate_s(costs, blocks_left, card.num_blocks) + _measure_s(recipe.measure, costs)
        blocks_left -= stage.estimated_drops(blocks_left, card.num_blocks)
    return total_s


def duration_text(seconds: float) -> str:
    """Returns a duration in words, such as `about 40 s` or `about 6 min`."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _measure_s(measure: Measure, costs: TaskCosts) -> float:
    """Returns the seconds of one measurement: every split once, and the timing of both models in every way."""
    ways = len(measure.precisions) * len(measure.runtimes)
    examples = sum(measure.batch_sizes) * (measure.repeats + measure.warmup) * 2 * ways
    return len(measure.splits) * costs.evaluate_s + examples * costs.forward_s
