"""Settings of the stage `reinitialise`. Nothing here imports torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import DetailClass
from toolkit.stages.reinitialise.detail import ReinitialiseDetail


class Reinitialise(StageSettings):
    """A control: the architecture that is left, with new random weights, as if it had been built so.

    What `recover` then makes of it, with `alignment_weight: 0`, is a plain smaller model trained from scratch. Only
    after block drops: for layers of other shapes the task does not say how their weights are drawn.
    """

    detail: ClassVar[DetailClass] = ReinitialiseDetail

    type: Literal["reinitialise"] = "reinitialise"
    allow_no_change: bool = False

    def in_words(self) -> str:
        return "draws new random weights for what is left, as an untrained model has them (a control)"
