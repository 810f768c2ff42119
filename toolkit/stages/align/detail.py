"""What the stage `align` leaves in the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import Recorded, StageDetail, TrainingDetail


class AdapterDetail(Recorded):
    """A low-rank adapter that was trained on a linear layer and merged into it."""

    layer: str
    rank: int
    alpha: float


class AlignDetail(TrainingDetail, StageDetail):
    """`blocks`: those that were aligned; `data_share`: the share of the training data that was trained on."""

    teacher: str | None = None
    trainable: str | None = None
    blocks: tuple[str, ...] = ()
    adapters: tuple[AdapterDetail, ...] = ()
    num_trained_params: int | None = None
    data_share: float | None = None

    def training(self) -> TrainingDetail | None:
        return self
