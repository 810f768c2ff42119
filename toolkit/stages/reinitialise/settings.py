"""Defines the settings of the stage `reinitialise`. Nothing here imports torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import DetailClass
from toolkit.stages.reinitialise.detail import ReinitialiseDetail


class Reinitialise(StageSettings):
    """Gives the remaining architecture new random weights, as if it had been built like this (a control).

    A `recover` stage with `alignment_weight: 0` then trains a plain smaller model from scratch. The stage can follow
    block drops only: for layers of other shapes the task does not say how their weights are drawn.

    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
    """

    detail: ClassVar[DetailClass] = ReinitialiseDetail

    type: Literal["reinitialise"] = "reinitialise"
    allow_no_change: bool = False

    def in_words(self) -> str:
        """Returns what the stage does in one phrase."""
        return "draws new random weights for what is left, as an untrained model has them (a control)"
