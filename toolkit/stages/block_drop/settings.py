"""Defines the settings of the stage `block_drop`. Nothing here imports torch."""

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

RACING_SHARE: Final = 0.4  # cost of a race as a share of scoring every candidate on the whole scoring set


class BlockDrop(StageSettings):
    """Removes whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Give `num_blocks` or `macs_ratio`, with or without `max_quality_drop`; or `max_quality_drop` alone; or `blocks`.

    num_blocks: number of blocks to remove in this stage; null by default.
    macs_ratio: share of the unmodified model's multiply-adds at which dropping stops, above 0 and at most 1; null by
        default.
    max_quality_drop: how far the validation metric may fall below that of the dense model, in units of the metric; null
        (the default) sets no limit. The round that goes below is undone, and dropping stops.
    blocks: names of the blocks to drop, in this order, one per round and without scores; null by default.
    schedule: `progressive` (the default) scores again after every drop; `one_shot` (a control) chooses all blocks from
        the first scores, and aligns once, for as many steps in all.
    criterion: score of the model without a block, on training data: `task_metric` (the default), `loss`, `block_mse`
        (mean squared difference between input and output of the block; few passes for all blocks), or `random` (a
        control).
    reuse_prefix: whether what candidates share is computed once; true by default. Scores are the same; false takes less
        memory and more time.
    racing: `successive_halving` scores on growing parts of the scoring set and drops the worse half of the candidates
        each time, which saves time with many blocks; `none` is the default.
    verify_selection: whether every block is also scored without reuse and racing, to report whether the choice is the
        same; false by default, as it takes long.
    repair: what makes up for a dropped block, fitted by least squares to the stream of the unmodified model. `fold`
        (the default; old name `closed_form`) refits the last linear or convolution layer that joins the stream before
        the block, with the BatchNorm that reads it, through a ReLU that may follow; it costs nothing in the finished
        model. `bypass` puts a linear map of the stream's channels in the block's place. `fold_and_bypass` folds first
        and fits the bypass to what is left. `none` repairs nothing.
    rank: rank of the linear map of a bypass; null (the default) is a full map. A lower rank costs fewer multiply-adds.
    align: settings of an `align` training after every round; null (the default) trains nothing. Its `data_share` holds
        for the first half of `num_blocks` rounds, after which all data are used.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
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
        """Writes `fold` by its old name, so that recipes from before it was renamed keep their hash."""
        return OLD_NAME_OF_FOLD if name == "fold" else name

    @model_validator(mode="after")
    def _rank_of_a_bypass(self) -> BlockDrop:
        if self.rank is not None and self.repair not in ("bypass", "fold_and_bypass"):
            raise ValueError(f"rank: only with repair: bypass or fold_and_bypass, not {self.repair}")
        return self

    @model_validator(mode="after")
    def _one_target(self) -> BlockDrop:
        if self.blocks is not None:
            return self
        if self.num_blocks is not None and self.macs_ratio is not None:
            raise ValueError("give only one of num_blocks and macs_ratio")
        if self.num_blocks is None and self.macs_ratio is None and self.max_quality_drop is None:
            raise ValueError("give a target: num_blocks, macs_ratio, max_quality_drop or blocks")
        if self.schedule == "one_shot" and self.num_blocks is None:
            raise ValueError("schedule one_shot needs num_blocks")
        return self

    @model_validator(mode="after")
    def _named_blocks_alone(self) -> BlockDrop:
        if self.blocks is not None:
            compatible = ("type", "blocks", "repair", "rank", "align", "allow_no_change")
            refuse_changed(
                self,
                [name for name in type(self).model_fields if name not in compatible],
                "cannot be combined with `blocks`, which already lists every block to drop",
            )
            refuse_twice("blocks", self.blocks)
        return self

    @model_validator(mode="after")
    def _racing_has_a_use(self) -> BlockDrop:
        if self.racing != "none" and self.criterion in ("block_mse", "random"):
            raise ValueError(
                f"racing has no effect with criterion {self.criterion}, which evaluates no candidate; use racing: none"
            )
        return self

    @property
    def repair_kind(self) -> RepairKind:
        """Returns `repair`, which must not be `none`."""
        assert self.repair not in ("none", OLD_NAME_OF_FOLD)
        return cast(RepairKind, self.repair)

    @property
    def target_macs_ratio(self) -> float | None:
        """Returns `macs_ratio`."""
        return self.macs_ratio

    @property
    def num_dropped(self) -> int:
        """Returns the number of named blocks, or `num_blocks`, or 0 if neither is given."""
        return len(self.blocks) if self.blocks is not None else self.num_blocks or 0

    @property
    def named_blocks(self) -> tuple[str, ...]:
        """Returns `blocks`."""
        return tuple(self.blocks or ())

    @property
    def trains(self) -> bool:
        """Says whether an `align` training follows every drop."""
        return self.align is not None

    def in_words(self) -> str:
        """Returns the target, the criterion, the repair and the training in one phrase."""
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
        """Yields a target that is already reached, too many blocks, and a criterion that the task does not offer."""
        if not self.allow_no_change:
            yield from useless_macs_ratio(self.macs_ratio, earlier)
        if card is None:
            return
        yield from self._too_many(card, earlier)
        if self.criterion not in card.criteria:
            message = f'{card.name} does not offer "{self.criterion}"; choose one of: {", ".join(card.criteria)}'
            yield ("criterion",), message

    def _too_many(self, card: TaskCard, earlier: Earlier) -> Iterator[StageFault]:
        """Yields a fault if no block would be left after this stage."""
        if card.num_blocks is None:
            return
        num_left = card.num_blocks
        for stage in earlier.values():
            num_left -= stage.num_dropped if stage.num_dropped < num_left else 0
        if self.num_dropped >= num_left:
            earlier_drops = (
                f" and earlier stages drop {card.num_blocks - num_left}" if num_left < card.num_blocks else ""
            )
            advice = f"drop at most {num_left - 1} here" if num_left > 1 else "none can be dropped here"
            place = "num_blocks" if self.blocks is None else "blocks"
            yield (
                (place,),
                f"{self.num_dropped} leaves no block: {card.name} has {card.num_blocks}{earlier_drops}; {advice}",
            )

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds of scoring, of one cut, and of the training after each drop."""
        drops = self.estimated_drops(num_blocks, dense_blocks)
        scoring = sum(self._evaluations(left) for left in range(num_blocks - drops + 1, num_blocks + 1))
        align_s = 0.0 if self.align is None else drops * self.align.estimate_s(costs, num_blocks, dense_blocks)
        return scoring * costs.score_pass_s + costs.prune_s + align_s

    def estimated_drops(self, num_blocks: int, dense_blocks: int) -> int:
        """Returns the number of blocks that the stage will drop, as far as it can be told.

        For a target in multiply-adds, the blocks are taken to hold all of them; for a limit on quality, one block is
        left.
        """
        if self.num_dropped:
            return min(self.num_dropped, num_blocks)
        if self.macs_ratio is None:
            return max(num_blocks - 1, 0)
        return min(max(num_blocks - math.floor(self.macs_ratio * dense_blocks), 0), num_blocks)

    def _evaluations(self, num_blocks: int) -> float:
        """Returns what scoring one round costs, in evaluations of the scoring set; see `prefix` and `racing`."""
        if self.criterion == "random" or self.blocks is not None:
            return 0.0
        naive = num_blocks if self.verify_selection else 0.0
        if self.criterion == "block_mse":
            return naive + 2.0
        scored = num_blocks / 2 + 1 if self.reuse_prefix else num_blocks
        return naive + scored * (RACING_SHARE if self.racing != "none" else 1.0)
