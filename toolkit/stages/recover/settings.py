"""Settings of the stage `recover`. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Config, Positive


class Recover(Config):
    """Fine-tune with the dense model as teacher: task loss + alignment of the predictions.

    Runs `max_steps`; with `patience`, stops after that many validations without improvement and keeps the best.
    """

    type: Literal["recover"] = "recover"
    max_steps: Positive = 300
    patience: Positive | None = None
    validate_every: Positive = 50
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    task_weight: Annotated[float, Field(ge=0.0)] = 1.0
    alignment_weight: Annotated[float, Field(ge=0.0)] = 1.0
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _some_loss(self) -> Recover:
        if self.task_weight == 0.0 and self.alignment_weight == 0.0:
            raise ValueError("task_weight and alignment_weight cannot both be 0: there would be nothing to learn from")
        return self
