"""Faults of meaning: a recipe that is well formed but cannot do what it says. Nothing here imports torch.

Whatever cannot change the model is a fault here, before anything runs, unless the stage says `allow_no_change`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.base.errors import Fault
from toolkit.recipe.recipe import Recipe
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep
from toolkit.stages.settings import Stage
from toolkit.tasks.cards import TASKS, ZOO, TaskCard
from toolkit.zoo.names import argument_faults, split_name
from toolkit.zoo.settings import ZooModel

OF_UNMODIFIED = "ratios are of the unmodified model"


def check(recipe: Recipe, card: TaskCard | None) -> list[Fault]:
    """All faults of meaning, without lines. Without a card (a user's own task) only what holds for every task."""
    return check_stages(dict(enumerate(recipe.stages)), card)


def check_task(name: str) -> list[Fault]:
    if name in TASKS:
        return []
    return [Fault(("task",), f'"{name[:60]}" is not a known task; choose one of: {", ".join(TASKS)}')]


def check_model(task: str, model: ZooModel | None) -> list[Fault]:
    """What can be said of a recipe's `model` without the zoo's library."""
    if model is None:
        example = "name: torchvision/resnet18"
        return [Fault(("model",), f"missing; task {ZOO} needs a model ({example})")] if task == ZOO else []
    if task != ZOO:
        return [Fault(("model",), f'task "{task[:60]}" has its own model; leave model out, or set task: {ZOO}')]
    try:
        library, _ = split_name(model.name)
    except ValueError as error:
        return [Fault(("model", "name"), str(error))]
    faults = argument_faults(library, model.arguments)
    return [Fault(("model", "arguments", *([key] if key else [])), message) for key, message in faults]


def check_stages(stages: Mapping[int, Stage], card: TaskCard | None) -> list[Fault]:
    """As `check`, for some of a recipe's stages by their index, in order (the others have faults of form)."""
    faults = [*_useless_macs_ratios(stages), *_useless_keeps(stages)]
    if card is not None:
        faults += [*_too_many_blocks(stages, card), *_not_offered(stages, card)]
    return faults


def _too_many_blocks(stages: Mapping[int, Stage], card: TaskCard) -> Iterator[Fault]:
    """At least one block must be left; the stage that takes the last one is at fault."""
    if card.num_blocks is None:
        return
    left = card.num_blocks
    for index, stage in stages.items():
        if not isinstance(stage, BlockDrop):
            continue
        key, number = ("num_blocks", stage.num_blocks) if stage.blocks is None else ("blocks", len(stage.blocks))
        if number is not None and number >= left:
            earlier = f" and earlier stages drop {card.num_blocks - left}" if left < card.num_blocks else ""
            can = f"drop at most {left - 1} here" if left > 1 else "none can be dropped here"
            message = f"{number} leaves no block: {card.name} has {card.num_blocks}{earlier}; {can}"
            yield Fault(("stages", index, key), message)
        else:
            left -= number or 0


def _not_offered(stages: Mapping[int, Stage], card: TaskCard) -> Iterator[Fault]:
    """Criteria and kinds of channel that the task does not have."""
    for index, stage in stages.items():
        if isinstance(stage, BlockDrop) and stage.criterion not in card.criteria:
            message = f'{card.name} does not offer "{stage.criterion}"; choose one of: {", ".join(card.criteria)}'
            yield Fault(("stages", index, "criterion"), message)
        if isinstance(stage, ChannelPrune) and card.kinds is not None:
            for place, kind in _kinds_used(stage):
                if kind not in card.kinds:
                    message = f'{card.name} has no channels of kind "{kind}"; choose one of: {", ".join(card.kinds)}'
                    yield Fault(("stages", index, *place), message)


def _kinds_used(stage: ChannelPrune) -> list[tuple[tuple[str | int, ...], str]]:
    if stage.keep is not None:
        return [(("keep", kind), kind) for kind, ratio in stage.keep if ratio < 1.0]
    return [(("scope", position), kind) for position, kind in enumerate(stage.scope or ())]


def _useless_macs_ratios(stages: Mapping[int, Stage]) -> Iterator[Fault]:
    """A `macs_ratio` that is reached before its stage begins."""
    reached, by = 1.0, "the unmodified model is at 1.0"
    for index, stage in stages.items():
        if not isinstance(stage, (BlockDrop, ChannelPrune)) or stage.macs_ratio is None:
            continue
        if stage.macs_ratio < reached:
            reached, by = stage.macs_ratio, f"stage {index} is to reach {stage.macs_ratio} already"
        elif not stage.allow_no_change:
            message = f"{stage.macs_ratio} would change nothing: {OF_UNMODIFIED}, and {by}; go below {reached}"
            yield Fault(("stages", index, "macs_ratio"), f"{message} or set allow_no_change: true")


def _useless_keeps(stages: Mapping[int, Stage]) -> Iterator[Fault]:
    """A `keep` of which every kind of channel is already that narrow."""
    kept = dict.fromkeys(Keep.model_fields, 1.0)
    for index, stage in stages.items():
        if not isinstance(stage, ChannelPrune) or stage.keep is None:
            continue
        narrower = {kind: ratio for kind, ratio in stage.keep if ratio < kept[kind]}
        if not narrower and not stage.allow_no_change:
            now = ", ".join(f"{kind} {ratio}" for kind, ratio in kept.items())
            message = f"would change nothing: {OF_UNMODIFIED}, which is then at {now}; give a kind less than that"
            yield Fault(("stages", index, "keep"), f"{message} or set allow_no_change: true")
        kept |= narrower
