"""Defines what the stage `align` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import StageDetail
from toolkit.stages.recorded import Recorded, TrainingDetail


class AdapterDetail(Recorded):
    """Holds a low-rank adapter that was trained on a linear layer and merged into it."""

    layer: str
    rank: int
    alpha: float


class AlignDetail(TrainingDetail, StageDetail):
    """Holds how the alignment went.

    blocks: names of the blocks that were aligned.
    num_trained_params: number of parameters that were trained, adapters included.
    data_share: share of the training data that was used.
    """

    teacher: str | None = None
    trainable: str | None = None
    blocks: tuple[str, ...] = ()
    adapters: tuple[AdapterDetail, ...] = ()
    num_trained_params: int | None = None
    data_share: float | None = None

    def training(self) -> TrainingDetail | None:
        """Returns the training, which is this detail itself."""
        return self
