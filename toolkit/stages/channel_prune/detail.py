"""What the stage `channel_prune` leaves in the record. Nothing here imports torch."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from toolkit.stages.detail import GroupWidth, KeptChannels, Recorded, RepairErrors, StageDetail

KIND_WORDS: Final = {
    "mlp": "MLP hidden units",
    "heads": "attention heads",
    "head_dim": "dimensions per attention head",
    "conv": "convolution channels",
    "embedding": "channels of the residual stream",
}


class CutGroup(GroupWidth):
    """`indices`: the channels of the group's reader that were kept, numbered as before the stage."""

    indices: tuple[int, ...] = ()


class Target(Recorded):
    """A share of the unmodified model's that was asked for, and what came of it."""

    asked: float | None = None
    achieved: float


class ChannelPruneDetail(StageDetail):
    """`not_cut`: layers that could not be cut, with the reason."""

    importance: str
    allocation: str = "uniform"
    round_to: int | None = None
    groups: tuple[CutGroup, ...]
    not_cut: dict[str, str] = Field(default_factory=dict)
    macs_ratio: Target | None = None
    keep: dict[str, Target] = Field(default_factory=dict)
    repairs: tuple[RepairErrors, ...] = ()
    batch_norms_reestimated: int = 0

    def kept_channels(self) -> KeptChannels | None:
        return KeptChannels(importance=self.importance, groups=self.groups, kind_words=KIND_WORDS)

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        return [(repair.layer, repair) for repair in self.repairs]
