"""Settings of the stage `block_drop`. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal, cast

from pydantic import Field, field_serializer, field_validator, model_validator

from toolkit.base.settings import Positive, Ratio, refuse_changed, refuse_twice
from toolkit.base.words import plain, setting
from toolkit.stages.align.settings import Align
from toolkit.stages.block_drop.detail import CRITERION_WORDS, BlockDropDetail
from toolkit.stages.contract import Axis, Earlier, StageFault, StageSettings, useless_macs_ratio
from toolkit.stages.detail import DetailClass
from toolkit.tasks.contract import TaskCard, TaskCosts

RepairKind = Literal["fold", "bypass", "fold_and_bypass"]

OLD_NAME_OF_FOLD: Final = "closed_form"

REPAIR_WORDS: Final = {
    "fold": "the layer before each cut is repaired by least squares",
    "bypass": "a linear map of the stream{rank}, fitted by least squares, takes the place of each block",
    "fold_and_bypass": "the layer before each cut is repaired by least squares, and a linear map of the stream{rank}, "
    "fitted in the same way, takes the place of each block",
    "none": "",
}

RACING_SHARE: Final = 0.4  # what a race costs of scoring every candidate on everything


class BlockDrop(StageSettings):
    """Remove whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Dropping stops at `num_blocks` removed in this stage or at `macs_ratio` (at most one of them), and, or instead, when
    a round takes the validation metric more than `max_quality_drop` below the dense model's; that round is undone.
    Or it drops just the named `blocks`, in that order, one per round: nothing is scored.
    `align` trains what is left after every round; its `data_share` holds for the first half of `num_blocks` rounds.
    `one_shot` is a control: all blocks are chosen from the first scores, and aligned once, for as many steps in all.
    `repair: fold` refits the last linear or convolution layer that joins the stream before the dropped block, with the
    BatchNorm that reads it, by least squares through the ReLU that may follow; the goal is the stream of the unmodified
    model. It costs nothing in the finished model. `repair: bypass` puts a linear map of the stream's channels, fitted
    to the same goal, in the block's place: a full one, or one of a `rank`. `fold_and_bypass` folds first and fits the
    bypass to what is left. `closed_form` is the old name of `fold`, and what recipes are written with.
    The criterion `random` is a control. `reuse_prefix` computes what the candidates share once (same scores, more
    memory); `racing` scores on growing parts of the scoring set and drops the worse half of the candidates each time;
    `verify_selection` also scores every block the naive way, to report whether the choice is the same.
    """

    later: ClassVar[frozenset[str]] = frozenset({"rank"})

    axis: ClassVar[Axis | None] = "depth"
    detail: ClassVar[DetailClass] = BlockDropDetail
    if_slower: ClassVar[str] = "other blocks or fewer channels may serve better"

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
    repair: Literal["fold", "closed_form", "bypass", "fold_and_bypass", "none"] = "fold"
    rank: Positive | None = None
    align: Align | None = None
    allow_no_change: bool = False

    @field_validator("repair")
    @classmethod
    def _new_name(cls, name: str) -> str:
        return "fold" if name == OLD_NAME_OF_FOLD else name

    @field_serializer("repair")
    def _old_name(self, name: str) -> str:
        """One thing is written in one way, and so that recipes from before it had its new name keep their hash."""
        return OLD_NAME_OF_FOLD if name == "fold" else name

    @model_validator(mode="after")
    def _rank_of_a_bypass(self) -> BlockDrop:
        if self.rank is not None and self.repair not in ("bypass", "fold_and_bypass"):
            raise ValueError(f"rank is of a bypass: it needs repair bypass or fold_and_bypass, not {self.repair}")
        return self

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
            goes = ("type", "blocks", "repair", "rank", "align", "allow_no_change")
            refuse_changed(
                self,
                [name for name in type(self).model_fields if name not in goes],
                "cannot be combined with `blocks`, which already lists every block to drop",
            )
            refuse_twice("blocks", self.blocks)
        return self

    @model_validator(mode="after")
    def _racing_has_a_use(self) -> BlockDrop:
        if self.racing != "none" and self.criterion in ("block_mse", "random"):
            raise ValueError(f"racing has no use with criterion {self.criterion}, which runs no candidate")
        return self

    @property
    def repair_kind(self) -> RepairKind:
        """The kind of repair, of a stage that has one."""
        assert self.repair not in ("none", OLD_NAME_OF_FOLD)
        return cast(RepairKind, self.repair)

    @property
    def target_macs_ratio(self) -> float | None:
        return self.macs_ratio

    @property
    def num_dropped(self) -> int:
        return len(self.blocks) if self.blocks is not None else self.num_blocks or 0

    @property
    def trains(self) -> bool:
        return self.align is not None

    def in_words(self) -> str:
        rank = f" of rank {self.rank}" if self.rank is not None else ""
        repair = f"; {REPAIR_WORDS[self.repair].format(rank=rank)}" if self.repair != "none" else ""
        when = "then" if self.schedule == "one_shot" else "after every round it"
        align = f"; {when} {self.align.in_words()}" if self.align is not None else ""
        if self.blocks is not None:
            return f"removes the blocks {', '.join(plain(block) for block in self.blocks)}{repair}{align}"
        what = "whole residual blocks"
        if self.num_blocks:
            what = f"{self.num_blocks} whole residual block{'s' if self.num_blocks > 1 else ''}"
        limits = (
            []
            if self.macs_ratio is None
            else [f"{setting(self.macs_ratio)} of the dense MACs (multiply-adds) are left"]
        )
        if self.max_quality_drop is not None:
            limits.append(
                f"a round takes the validation metric more than {self.max_quality_drop:g} below the dense one"
            )
        until = f" until {' or '.join(limits)}" if limits else ""
        choice = (
            "all chosen from the first scores" if self.schedule == "one_shot" else "the least important one per round"
        )
        race = ", in a race on growing parts of the data" if self.racing != "none" else ""
        return f"removes {what}{until}, {choice}, scored by the {CRITERION_WORDS[self.criterion]}{race}{repair}{align}"

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        if not self.allow_no_change:
            yield from useless_macs_ratio(self.macs_ratio, earlier)
        if card is None:
            return
        yield from self._too_many(card, earlier)
        if self.criterion not in card.criteria:
            message = f'{card.name} does not offer "{self.criterion}"; choose one of: {", ".join(card.criteria)}'
            yield ("criterion",), message

    def _too_many(self, card: TaskCard, earlier: Earlier) -> Iterator[StageFault]:
        """At least one block must be left; the stage that takes the last one is at fault."""
        if card.num_blocks is None:
            return
        left = card.num_blocks
        for stage in earlier.values():
            left -= stage.num_dropped if stage.num_dropped < left else 0
        if self.num_dropped >= left:
            before = f" and earlier stages drop {card.num_blocks - left}" if left < card.num_blocks else ""
            can = f"drop at most {left - 1} here" if left > 1 else "none can be dropped here"
            place = "num_blocks" if self.blocks is None else "blocks"
            yield (place,), f"{self.num_dropped} leaves no block: {card.name} has {card.num_blocks}{before}; {can}"

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        drops = self.estimated_drops(num_blocks, dense_blocks)
        scoring = sum(self._evaluations(left) for left in range(num_blocks - drops + 1, num_blocks + 1))
        align_s = 0.0 if self.align is None else drops * self.align.estimate_s(costs, num_blocks, dense_blocks)
        return scoring * costs.score_pass_s + costs.prune_s + align_s

    def estimated_drops(self, num_blocks: int, dense_blocks: int) -> int:
        """For a MACs ratio, as if the blocks held all of the MACs; for a floor on quality, all blocks but one."""
        if self.num_dropped:
            return min(self.num_dropped, num_blocks)
        if self.macs_ratio is None:
            return max(num_blocks - 1, 0)
        return min(max(num_blocks - math.floor(self.macs_ratio * dense_blocks), 0), num_blocks)

    def _evaluations(self, num_blocks: int) -> float:
        """What scoring one round is worth, in evaluations of the whole scoring set (see `prefix` and `racing`)."""
        if self.criterion == "random" or self.blocks is not None:
            return 0.0
        naive = num_blocks if self.verify_selection else 0.0
        if self.criterion == "block_mse":
            return naive + 2.0
        scored = num_blocks / 2 + 1 if self.reuse_prefix else num_blocks
        return naive + scored * (RACING_SHARE if self.racing != "none" else 1.0)
