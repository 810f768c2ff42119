"""Settings of the stage `block_drop`. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Config, Positive, Ratio, refuse_changed, refuse_twice
from toolkit.stages.align.settings import Align


class BlockDrop(Config):
    """Remove whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Dropping stops at `num_blocks` removed in this stage or at `macs_ratio` (at most one of them), and, or instead, when
    a round takes the validation metric more than `max_quality_drop` below the dense model's; that round is undone.
    Or it drops just the named `blocks`, in that order, one per round: nothing is scored.
    `align` trains what is left after every round; its `data_share` holds for the first half of `num_blocks` rounds.
    `one_shot` is a control: all blocks are chosen from the first scores, and aligned once, for as many steps in all.
    The criterion `random` is a control. `reuse_prefix` computes what the candidates share once (same scores, more
    memory); `racing` scores on growing parts of the scoring set and drops the worse half of the candidates each time;
    `verify_selection` also scores every block the naive way, to report whether the choice is the same.
    """

    type: Literal["block_drop"] = "block_drop"
    num_blocks: Positive | None = None
    macs_ratio: Ratio | None = None
    max_quality_drop: Annotated[float, Field(ge=0.0)] | None = None
    blocks: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
    schedule: Literal["progressive", "one_shot"] = "progressive"
    criterion: Literal["task_metric", "loss", "block_mse", "random"] = "task_metric"
    reuse_prefix: bool = True
    racing: Literal["none", "successive_halving"] = "none"
    verify_selection: bool = False
    repair: Literal["closed_form", "none"] = "closed_form"
    align: Align | None = None
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> BlockDrop:
        if self.blocks is not None:
            return self
        if self.num_blocks is not None and self.macs_ratio is not None:
            raise ValueError("give only one of num_blocks and macs_ratio")
        if self.num_blocks is None and self.macs_ratio is None and self.max_quality_drop is None:
            raise ValueError("give num_blocks, macs_ratio or max_quality_drop: where dropping stops; or blocks")
        if self.schedule == "one_shot" and self.num_blocks is None:
            raise ValueError("schedule one_shot needs num_blocks")
        return self

    @model_validator(mode="after")
    def _named_blocks_alone(self) -> BlockDrop:
        if self.blocks is not None:
            goes = ("type", "blocks", "repair", "align", "allow_no_change")
            refuse_changed(
                self, [name for name in type(self).model_fields if name not in goes], "no use here, blocks says it all"
            )
            refuse_twice("blocks", self.blocks)
        return self

    @model_validator(mode="after")
    def _racing_has_a_use(self) -> BlockDrop:
        if self.racing != "none" and self.criterion in ("block_mse", "random"):
            raise ValueError(f"racing has no use with criterion {self.criterion}, which runs no candidate")
        return self
