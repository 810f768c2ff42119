"""Defines what the stage `channel_prune` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from toolkit.stages.detail import CutGroup, KeptChannels, RepairErrors, StageDetail, Target

KIND_WORDS: Final = {
    "mlp": "MLP hidden units",
    "heads": "attention heads",
    "head_dim": "dimensions per attention head",
    "conv": "convolution channels",
    "embedding": "channels of the residual stream",
}


class ChannelPruneDetail(StageDetail):
    """Holds which channels were cut, and how layers were repaired.

    not_cut: the reason for each layer that could not be cut.
    keep: asked and reached share of the unmodified width, by kind of channel.
    """

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
        """Returns which channels were kept."""
        return KeptChannels(importance=self.importance, groups=self.groups, kind_words=KIND_WORDS)

    def repair_errors(self) -> list[tuple[str, RepairErrors]]:
        """Returns the errors of all repairs, labelled with the layer."""
        return [(repair.layer, repair) for repair in self.repairs]
