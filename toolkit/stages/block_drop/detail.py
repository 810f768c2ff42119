"""What the stage `block_drop` leaves in the record. Nothing here imports torch."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from toolkit.stages.align.detail import AlignDetail
from toolkit.stages.detail import BlockScores, RepairErrors, Round, StageDetail

CRITERION_WORDS: Final = {
    "task_metric": "task metric on training data with the block removed",
    "loss": "loss on training data with the block removed",
    "block_mse": "mean squared difference between the block's input and output",
    "random": "luck of a seeded draw (a control)",
}


class DropRepair(RepairErrors):
    """What made up for a block. `layer`: the layer that was refitted, or the block where a bypass alone was fitted.

    The errors are those of the stream behind the block's place. `bypass`: the block in whose place a linear bypass
    stands, of this `rank`; None is full.
    """

    kind: Literal["fold", "bypass", "fold_and_bypass"] = "fold"
    bypass: str | None = None
    rank: int | None = None


class DropRound(Round):
    """One round. `ranking`: candidates from best to worst; `all_dropped`: what went, several where it is one-shot."""

    ranking: tuple[str, ...] = ()
    repair: DropRepair | None = None
    repairs: tuple[DropRepair | None, ...] = ()
    align: AlignDetail | None = None
    block_passes: dict[str, float] = Field(default_factory=dict)
    rungs: tuple[dict[str, Any], ...] = ()
    naive_choice: str | None = None
    naive_scores: dict[str, float] | None = None
    macs_ratio: float | None = None
    validation: float | None = None
    floor: float | None = None


class BlockDropDetail(StageDetail):
    """`undone` is a round that went below the floor on quality; `remaining` are the blocks that are left."""

    criterion: str
    higher_is_better: bool
    schedule: str = "progressive"
    blocks: tuple[str, ...]
    rounds: tuple[DropRound, ...]
    undone: DropRound | None = None
    dropped: tuple[str, ...] = ()
    remaining: tuple[str, ...] | None = None
    block_passes: dict[str, float] = Field(default_factory=dict)
    macs_ratio: float | None = None

    def block_scores(self) -> BlockScores | None:
        if not any(one.scores for one in self.rounds):
            return None
        words = CRITERION_WORDS.get(self.criterion, self.criterion)
        return BlockScores(
            criterion_words=words, higher_is_better=self.higher_is_better, blocks=self.blocks, rounds=self.rounds
        )

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        return [
            (f"round {number}: {made.layer}", made)
            for number, one in enumerate(self.rounds, start=1)
            for made in one.repairs or (one.repair,)
            if made is not None
        ]

    def has_view(self) -> bool:
        return True
