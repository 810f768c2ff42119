"""Settings of the stage `round_weights`, which is made up. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from toolkit.base.settings import Positive
from toolkit.stages.contract import Earlier, StageFault, StageSettings
from toolkit.stages.detail import DetailClass, StageDetail
from toolkit.tasks.contract import TaskCard, TaskCosts


class RoundWeightsDetail(StageDetail):
    """`num_rounded`: the number of tensors."""

    num_rounded: int


class RoundWeights(StageSettings):
    """Round all weights to so many decimals."""

    detail: ClassVar[DetailClass] = RoundWeightsDetail

    type: Literal["round_weights"] = "round_weights"
    decimals: Positive

    def in_words(self) -> str:
        return f"rounds all weights to {self.decimals} decimals"

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        if any(isinstance(stage, RoundWeights) and stage.decimals <= self.decimals for stage in earlier.values()):
            yield ("decimals",), "an earlier stage rounds to no more decimals than that"

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        return 600.0
