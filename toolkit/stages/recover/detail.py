"""What the stage `recover` leaves in the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import StageDetail, TrainingDetail


class RecoverDetail(TrainingDetail, StageDetail):
    """The curve of the fine-tuning, and which weights were kept."""

    def training(self) -> TrainingDetail | None:
        return self
