"""Says before any work which stage of a recipe asks for more blocks than the model has. Nothing here imports torch."""

from __future__ import annotations

from toolkit.base.errors import StageError
from toolkit.preflight.report import Preflight
from toolkit.recipe.recipe import Recipe


def check_fits(recipe: Recipe, preflight: Preflight) -> None:
    """Checks the numbers and names of the blocks that the stages drop against the blocks that can be dropped.

    Names are checked in the first stage that drops blocks; in a later one, other blocks may have taken their place.
    The check is left out where the preflight did not look for blocks.

    Raises:
        StageError: a stage drops more blocks than are left, or a block that cannot be dropped.
    """
    if all(answer.question != "blocks" or answer.answer != "yes" for answer in preflight.answers):
        return
    names = [part.name for part in preflight.blocks if part.can_go]
    reasons = {part.name: part.reason for part in preflight.blocks if not part.can_go}
    num_left = len(names)
    for index, stage in enumerate(recipe.stages):
        unknown = [name for name in stage.named_blocks if name not in names] if num_left == len(names) else []
        if unknown:
            why = "; ".join(
                f"{name} cannot be dropped: {reasons.get(name, 'there is no such block')}" for name in unknown
            )
            raise StageError(f"blocks: {why}; choose among: {', '.join(names)}", index)
        if stage.num_dropped >= num_left:
            num_dropped = stage.num_dropped
            asked = f"blocks: {num_dropped} are listed" if stage.named_blocks else f"num_blocks is {num_dropped}"
            before = "" if num_left == len(names) else f", {len(names) - num_left} are dropped before"
            raise StageError(
                f"{asked}, but the model has {len(names)} blocks ({', '.join(names)}){before} and one must stay: "
                f"at most {num_left - 1}",
                index,
            )
        num_left -= stage.num_dropped
