"""A rough estimate of how long a recipe takes, from the task's card. Nothing here imports torch."""

from __future__ import annotations

from toolkit.recipe.recipe import Measure, Recipe
from toolkit.tasks.contract import TaskCard, TaskCosts


def estimate_s(recipe: Recipe, card: TaskCard) -> float | None:
    """Seconds on 2 idle CPU cores. Later steps are priced like the dense model, so this is rather too long.

    None where the card cannot say.
    """
    if card.costs is None or card.num_blocks is None:
        return None
    costs, left = card.costs, card.num_blocks
    total_s = costs.start_s + _measure_s(recipe.measure, costs)
    for stage in recipe.stages:
        total_s += stage.estimate_s(costs, left, card.num_blocks) + _measure_s(recipe.measure, costs)
        left -= stage.estimated_drops(left, card.num_blocks)
    return total_s


def duration_text(seconds: float) -> str:
    """`"about 40 s"`, `"about 6 min"`."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _measure_s(measure: Measure, costs: TaskCosts) -> float:
    """Every split once, and the latency of this model and the dense one in turns, in every runtime and precision."""
    ways = len(measure.precisions) * len(measure.runtimes)
    examples = sum(measure.batch_sizes) * (measure.repeats + measure.warmup) * 2 * ways
    return len(measure.splits) * costs.evaluate_s + examples * costs.forward_s
