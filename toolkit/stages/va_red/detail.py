"""Defines what the stage `va_red` writes into the record. Nothing here imports torch."""

from __future__ import annotations

from pydantic import Field

from toolkit.stages.detail import Recorded, StageDetail, Target, TrainingDetail


class DynamicLayer(Recorded):
    """Holds what became of a convolution.

    steps: the temporal strides that it offers, or the one that it has.
    channels: the numbers of computed channels that it offers, or the one that it has.
    of: the number of output channels.
    rebuilt_by: the map that rebuilds the channels that are not computed.
    channel_errors, step_errors: squared error of the fitted maps on calibration data as a share of the output's
        variance, by number of computed channels and by stride.
    macs: the multiply-adds of each option, "R x k", for one example, without the gate's.
    shares: the share of the calibration examples for which the gate takes each option, the same keys; empty without a
        gate.
    """

    name: str
    steps: tuple[int, ...]
    channels: tuple[int, ...]
    of: int
    rebuilt_by: str
    channel_errors: dict[str, float] = Field(default_factory=dict)
    step_errors: dict[str, float] = Field(default_factory=dict)
    macs: dict[str, int] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)


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
