"""Defines what the stage `recover` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from toolkit.stages.detail import StageDetail
from toolkit.stages.recorded import TrainingDetail


class RecoverDetail(TrainingDetail, StageDetail):
    """Holds the curve of the fine-tuning, and which weights were kept."""

    def training(self) -> TrainingDetail | None:
        """Returns the training, which is this detail itself."""
        return self
