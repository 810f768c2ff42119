"""Settings of the stage `align`. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Positive, Ratio, Weight, refuse_changed
from toolkit.stages.align.detail import AlignDetail
from toolkit.stages.contract import StageSettings
from toolkit.stages.detail import DetailClass
from toolkit.stages.words import early_stop, kept_weights
from toolkit.tasks.contract import TaskCosts

ATTENTION_LAYERS: Final = ("q", "k", "v", "qkv", "proj", "query", "key", "value")


class Align(StageSettings):
    """Cross-depth alignment (Progressive Block Drop, CVPR 2025): fine-tune towards a teacher, block by block.

    loss = task_weight * task loss + feature_weight * mean over the blocks that are left of MSE(output, teacher's)
    + class_weight, segment_weight * the task's alignment terms of these names. A weight of null is 1 if the task has
    the term; a number for a term that the task does not have is an error. Terms of other names count once. A
    `class_loss` of null is the task's own form; the paper takes softmax, which is zero for a single class.

    `teacher`: the unmodified model (static), or the model as it came into the stage or round (dynamic).
    `trainable: lora`: low-rank adapters on the linear layers inside blocks whose names match `targets` (shell patterns
    for the last part of a name; with dots, for as many last parts), merged when training is over, plus whatever a
    switch that is on covers: all norms, what acts before the first block, what acts after the last one. Adapters add
    `lora_alpha / lora_rank` * B A x; a rank of null is a quarter of the layer's inputs, an alpha of null is the rank
    (the paper's alpha 1 without 1/r). `trainable: full`: all weights.

    `patience`: stops after that many validations without improvement over the best one of the training. `select`:
    `best` keeps the weights with the best validation, of which the model as it came is the first; `last` keeps the last
    ones, whatever validation says.
    """

    detail: ClassVar[DetailClass] = AlignDetail
    later: ClassVar[frozenset[str]] = frozenset({"select"})

    type: Literal["align"] = "align"
    teacher: Literal["static", "dynamic"] = "static"
    max_steps: Positive = 300
    patience: Positive | None = None
    select: Literal["best", "last"] = "best"
    validate_every: Positive = 50
    batch_size: Positive = 16
    data_share: Ratio = 1.0  # of the training data; below 1, a subset that the seed fixes
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    task_weight: Weight = 1.0
    feature_weight: Weight = 1.0
    class_weight: Weight | None = None
    segment_weight: Weight | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 3.5
    class_loss: Literal["bernoulli", "softmax"] | None = None
    segment_loss: Literal["diou", "giou"] = "diou"
    trainable: Literal["lora", "full"] = "lora"
    targets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ATTENTION_LAYERS
    lora_rank: Positive | None = None
    lora_alpha: Annotated[float, Field(gt=0.0)] | None = None
    train_norms: bool = True
    train_embedding: bool = True
    train_head: bool = True
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _some_loss(self) -> Align:
        weights = (self.task_weight, self.feature_weight, self.class_weight, self.segment_weight)
        if not any(weight is None or weight > 0.0 for weight in weights):
            raise ValueError("all weights are 0: there would be nothing to learn from")
        return self

    @model_validator(mode="after")
    def _lora_settings(self) -> Align:
        names = ["targets", "lora_rank", "lora_alpha", "train_norms", "train_embedding", "train_head"]
        if self.trainable == "full":
            refuse_changed(self, names, "only with trainable: lora; full trains all weights")
        return self

    @property
    def trains(self) -> bool:
        return True

    def in_words(self) -> str:
        teacher = "the dense model" if self.teacher == "static" else "the model as it came into this stage"
        weights: dict[str, float | None] = {"task": self.task_weight, "blocks": self.feature_weight}
        weights |= {"classes": self.class_weight, "segments": self.segment_weight}
        loss = " + ".join(f"{name} × {1.0 if weight is None else weight:g}" for name, weight in weights.items())
        switches = {"norms": self.train_norms, "embedding": self.train_embedding, "head": self.train_head}
        trained = ["low-rank adapters on attention", *(name for name, is_on in switches.items() if is_on)]
        what = "all weights" if self.trainable == "full" else ", ".join(trained)
        how = f"trained: {what}; loss: {loss}"
        steps = f"at most {self.max_steps} steps{early_stop(self.patience)}{kept_weights(self.select)}"
        return f"aligns outputs and every block with {teacher} ({how}) for {steps}"

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        return costs.training_s(self.max_steps, self.validate_every)
