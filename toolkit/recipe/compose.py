"""Composes recipes that cut depth, width or both from stages. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from toolkit.recipe.recipe import Measure, Recipe
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.contract import StageSettings
from toolkit.stages.recover.settings import Recover
from toolkit.stages.settings import Stage
from toolkit.zoo.settings import ZooModel

Order = Literal["depth_then_width", "width_then_depth"]


def compose(
    *,
    task: str,
    depth: BlockDrop | Sequence[BlockDrop] | None = None,
    width: ChannelPrune | Sequence[ChannelPrune] | None = None,
    order: Order = "depth_then_width",
    recover: Recover | Align | None = None,
    name: str | None = None,
    seed: int = 0,
    device: Literal["cpu", "cuda"] = "cpu",
    measure: Measure | None = None,
    model: ZooModel | None = None,
) -> Recipe:
    """Returns a recipe of block-drop stages, channel stages or both.

    task: the name of the task.
    depth, width: one stage or several.
    order: which of depth and width comes first: `depth_then_width` or `width_then_depth`.
    recover: the last stage, which trains; None adds none.
    name: the name of the recipe; None stands for `depth_only`, `width_only` or the order.
    measure: what is measured after every stage; None stands for the defaults.
    model: the zoo model, for task `zoo` alone.

    Raises:
        ValueError: neither `depth` nor `width` is given, or the order is unknown.
    """
    depth_stages, width_stages = _several(depth), _several(width)
    if not depth_stages and not width_stages:
        raise ValueError("nothing to compose: give depth (a BlockDrop), width (a ChannelPrune) or both")
    if order == "depth_then_width":
        stages = depth_stages + width_stages
    elif order == "width_then_depth":
        stages = width_stages + depth_stages
    else:
        raise ValueError(f"order {order!r} is unknown; choose depth_then_width or width_then_depth")
    family = order if depth_stages and width_stages else "depth_only" if depth_stages else "width_only"
    return Recipe(
        name=name or family,
        task=task,
        seed=seed,
        device=device,
        model=model,
        stages=stages if recover is None else (*stages, recover),
        measure=measure or Measure(),
    )


def _several(stages: Stage | Sequence[Stage] | None) -> tuple[Stage, ...]:
    if stages is None:
        return ()
    return (stages,) if isinstance(stages, StageSettings) else tuple(stages)
