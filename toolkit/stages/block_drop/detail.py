"""Defines what the stage `block_drop` writes into the record. Nothing here imports torch."""

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
    """Holds what made up for a dropped block; the errors are those of the stream behind the place of the block.

    layer: layer that was refitted, or the block if only a bypass was fitted.
    bypass: block in whose place a linear bypass stands.
    rank: rank of the bypass; None is a full map.
    """

    kind: Literal["fold", "bypass", "fold_and_bypass"] = "fold"
    bypass: str | None = None
    rank: int | None = None


class DropRound(Round):
    """Holds one round.

    ranking: candidates from best to worst.
    repairs: repair of each dropped block; `repair` is that of the first.
    naive_choice, naive_scores: choice and scores without reuse and racing, if asked for.
    floor: lowest validation metric allowed.
    """

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
    """Holds which blocks were dropped, and how they were chosen.

    blocks: names of the blocks that could be dropped, in execution order.
    undone: the round that was undone because it went below the floor of the validation metric.
    remaining: names of the blocks that are left.
    """

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
        """Returns the scores of all rounds, if blocks were scored."""
        if not any(turn.scores for turn in self.rounds):
            return None
        words = CRITERION_WORDS.get(self.criterion, self.criterion)
        return BlockScores(
            criterion_words=words, higher_is_better=self.higher_is_better, blocks=self.blocks, rounds=self.rounds
        )

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        """Returns the errors of all repairs, labelled with round and layer."""
        return [
            (f"round {number}: {repair.layer}", repair)
            for number, turn in enumerate(self.rounds, start=1)
            for repair in turn.repairs or (turn.repair,)
            if repair is not None
        ]

    def has_view(self) -> bool:
        """Says that there is always something to draw."""
        return True
