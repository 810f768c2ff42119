"""States what the cells of the CIFAR-10 benchmark do, as stages of a recipe. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from toolkit.base.errors import PlanError, RecipeError, UserError
from toolkit.benchmarks.cifar10.cells import CellKey, ImageCell
from toolkit.recipe.faults import plain_faults
from toolkit.recipe.recipe import Measure, Recipe

Stages = Sequence[Mapping[str, Any]]

RECOVER: Final[Mapping[str, Any]] = {
    "type": "recover",
    "optimizer": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.01,
    "weight_decay": 5e-4,
    "batch_size": 64,
    "max_steps": 100,
    "warmup_steps": 10,
    "validate_every": 100,
    "select": "last",  # every cell shows what the training makes of its model
}

FOLLOWS: Final = {  # by control, the family whose planned blocks or widths it uses
    "plain_drop": "depth",
    "replace_me": "depth",
    "toast": "depth",
    "plain_width": "width",
    "grail": "width",
}

PEER_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "torch_pruning": {"importance": "group_l2"},
    "torch_pruning_global": {"importance": "group_l2", "global_pruning": True},
    "torch_pruning_taylor": {"importance": "group_taylor", "global_pruning": True},
}

STREAM_LAYERS: Final = ("conv1", "*.conv2")  # torch-pruning cannot cut streams whose shortcuts are padded

PEER_TOLERANCE: Final = (
    0.04  # share of the dense multiply-adds; a peer cuts all groups at once, so its steps are coarse
)

_DROP: Final = {"type": "block_drop", "criterion": "loss"}

_NARROW: Final = {"type": "channel_prune", "importance": "obs", "round_to": 1}

BY_HAND_STAGES: Final[Mapping[str, Stages]] = {
    "fold_2": [_DROP | {"num_blocks": 2}],
    "fold_3": [_DROP | {"num_blocks": 3}],
    "width_half": [_NARROW | {"keep": {"conv": 0.5}}],
    "both_3_75": [_DROP | {"num_blocks": 3}, _NARROW | {"keep": {"conv": 0.75}}],
    "both_3_60": [_DROP | {"num_blocks": 3}, _NARROW | {"keep": {"conv": 0.6}}],
}

MEASURE: Final = Measure(batch_sizes=(1,), threads=1, repeats=3, warmup=0, splits=("validation",))  # as short as can be


class NotYetError(UserError):
    """Says that a cell needs another one, which was not run yet."""


def control_stages(key: CellKey, followed: ImageCell | None) -> Stages:
    """Returns the stages of a control.

    followed: the cell of the plan that the control follows, see `FOLLOWS`; None if it was not run.

    Raises:
        PlanError: no plan was found for the control to follow.
        NotYetError: the plan that the control follows was not run yet.
    """
    if key.method in PEER_SETTINGS:
        peer = {"type": "torch_pruning", "macs_ratio": key.budget, "round_to": 1, "macs_tolerance": PEER_TOLERANCE}
        peer |= {"exclude": STREAM_LAYERS}
        return [{**peer, **PEER_SETTINGS[key.method]}]
    if key.method in BY_HAND_STAGES:
        return BY_HAND_STAGES[key.method]
    leader = FOLLOWS[key.method]
    if followed is None:
        raise NotYetError(f"{key.method} follows the plan of {leader}, which was not run yet")
    if followed.plan is None:
        raise PlanError(f"{key.method} follows the plan of {leader}, but there is none: {followed.reason}")
    dropped, widths = followed.plan.dropped, dict(followed.plan.widths)
    stages: dict[str, Mapping[str, Any]] = {
        "plain_drop": {"type": "block_drop", "num_blocks": len(dropped), "criterion": "loss", "repair": "none"},
        "replace_me": {"type": "block_drop", "blocks": dropped, "repair": "none"},
        "toast": {"type": "block_drop", "blocks": dropped, "repair": "bypass"},  # costs about 6 % of each block
        "plain_width": {"type": "channel_prune", "widths": widths, "repair": "none"},
        "grail": {"type": "channel_prune", "widths": widths, "repair": "none", "batch_norm": "keep"},
    }
    return [stages[key.method]]


def recovery_stages(before: ImageCell | None, recover: Mapping[str, Any]) -> Stages:
    """Returns the stages of a cell without fine-tuning, then the fine-tuning; blocks are not chosen again but named.

    before: the cell without fine-tuning; None if it was not run.

    Raises:
        PlanError: the cell has no model.
        NotYetError: the cell was not run yet.
    """
    if before is None:
        raise NotYetError("the cell without fine-tuning was not run yet; run the part training_free first")
    if before.recipe is None:
        raise PlanError(f"the cell without fine-tuning has no model: {before.reason}")
    stages = [stage.model_dump(exclude_defaults=True) | {"type": stage.type} for stage in before.recipe.stages]
    for stage in stages:
        if stage["type"] == "block_drop" and "blocks" not in stage:
            repair = {"repair": stage["repair"]} if "repair" in stage else {}
            stage.clear()
            stage.update({"type": "block_drop", "blocks": before.dropped, **repair})
    return [*stages, recover]


def recipe_of(key: CellKey, task: str, stages: Stages) -> Recipe:
    """Returns the recipe of a cell.

    Raises:
        RecipeError: a stage or a setting is not known.
    """
    content = {
        "name": str(key.place).replace("/", "-"),
        "task": task,
        "seed": key.seed or 0,
        "device": "cpu",
        "stages": [dict(stage) for stage in stages],
        "measure": MEASURE,
    }
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(plain_faults(error, Recipe), str(key.place)) from error
