"""Defines what the stage `va_red` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from pydantic import Field

from toolkit.stages.detail import DynamicLayer, StageDetail, Target
from toolkit.stages.recorded import TrainingDetail


class VaRedDetail(StageDetail):
    """Holds the dynamic layers, how their options were chosen, and how the policy was trained.

    scope: "input" for gates, "constant" for one option per layer.
    refused: why other convolutions stay as they are, by name.
    macs_ratio: the share of the unmodified multiply-adds; with gates, the mean over the calibration examples.
    training_result: how the policy was trained; None for constant options.
    """

    scope: str
    layers: tuple[DynamicLayer, ...]
    refused: dict[str, str] = Field(default_factory=dict)
    macs_ratio: Target
    batch_norms_reestimated: int = 0
    training_result: TrainingDetail | None = None

    def training(self) -> TrainingDetail | None:
        """Returns the training of the policy, if there was one."""
        return self.training_result

    def dynamic_layers(self) -> tuple[DynamicLayer, ...]:
        """Returns the dynamic layers."""
        return self.layers
