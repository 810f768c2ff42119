"""Defines the settings of the stage `recover`. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Positive
from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import DetailClass
from toolkit.stages.recover.detail import RecoverDetail
from toolkit.stages.words import early_stop, kept_weights
from toolkit.tasks.contract import TaskCosts


class Recover(StageSettings):
    """Fine-tunes all weights with the dense model as teacher: task loss + alignment of the predictions.

    max_steps: number of training steps; 300 by default, more where validation still improves at the end.
    patience: validations without improvement over the best one of this training, after which training stops; null (the
        default) never stops early.
    select: `best` (the default) keeps the weights of the best validation, among which is the model before training;
        `last` keeps the last weights, whatever validation says.
    validate_every: steps between validations; 50 by default.
    batch_size: examples per step; 16 by default, smaller where the device runs out of memory.
    learning_rate: highest learning rate, reached after warm-up; 5e-4 by default, lower where the loss rises or is not
        finite.
    weight_decay: weight decay; 0.05 by default. AdamW decouples it from the gradient. For sgd it is the L2 penalty of
        torch.optim.SGD, for which a hundredth of the default is usual.
    warmup_steps: steps of linear warm-up before the cosine decay of the learning rate; 20 by default.
    task_weight: weight of the task's own loss; 1.0 by default, 0 to learn from the teacher alone.
    alignment_weight: weight of the distance between the predictions of model and teacher; 1.0 by default, 0 to train
        without a teacher.
    optimizer: `adamw` (the default), or `sgd` with momentum; both follow the same schedule of the learning rate.
    momentum: momentum of sgd; 0.9 by default.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
    """

    detail: ClassVar[DetailClass] = RecoverDetail
    later: ClassVar[frozenset[str]] = frozenset({"optimizer", "momentum", "select"})

    type: Literal["recover"] = "recover"
    max_steps: Positive = 300
    patience: Positive | None = None
    select: Literal["best", "last"] = "best"
    validate_every: Positive = 50
    batch_size: Positive = 16
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    task_weight: Annotated[float, Field(ge=0.0)] = 1.0
    alignment_weight: Annotated[float, Field(ge=0.0)] = 1.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _some_loss(self) -> Recover:
        if self.task_weight == 0.0 and self.alignment_weight == 0.0:
            raise ValueError("task_weight and alignment_weight cannot both be 0: there would be nothing to learn from")
        return self

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> Recover:
        if "momentum" in self.model_fields_set and self.optimizer != "sgd":
            raise ValueError("momentum: only with optimizer: sgd; adamw has its own")
        return self

    @property
    def trains(self) -> bool:
        """Returns True, because the stage trains."""
        return True

    def in_words(self) -> str:
        """Returns the loss, the optimizer and the number of steps in one phrase."""
        weights = f"task loss × {self.task_weight:g} + alignment × {self.alignment_weight:g}"
        steps = f"at most {self.max_steps} steps{early_stop(self.patience)}{kept_weights(self.select)}"
        how = f"; SGD with momentum {self.momentum:g}" if self.optimizer == "sgd" else ""
        return f"fine-tunes with the dense model as teacher ({weights}{how}) for {steps}"

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds of training and validation."""
        return costs.training_s(self.max_steps, self.validate_every)
