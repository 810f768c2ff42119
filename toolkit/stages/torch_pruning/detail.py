"""Defines what the stage `torch_pruning` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from typing import Final

from toolkit.stages.detail import CutGroup, KeptChannels, StageDetail, Target

KIND_WORDS: Final = {"conv": "channels of convolutions", "linear": "channels of linear layers"}


class TorchPruningDetail(StageDetail):
    """Holds what torch-pruning cut.

    pruning_ratio: ratio given to torch-pruning; None if the model was small enough already.
    groups: all groups that could be cut, each named by the layer whose outputs torch-pruning begins with.
    fixed: layers whose outputs were kept, because the task protects them or they reach the model's outputs.
    """

    importance: str
    global_pruning: bool
    round_to: int
    pruning_ratio: float | None = None
    groups: tuple[CutGroup, ...] = ()
    fixed: tuple[str, ...] = ()
    macs_ratio: Target
    batch_norms_reestimated: int = 0

    def kept_channels(self) -> KeptChannels | None:
        """Returns the groups, if there are any."""
        if not self.groups:
            return None
        return KeptChannels(importance=self.importance, groups=self.groups, kind_words=KIND_WORDS)
