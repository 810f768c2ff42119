"""Defines the settings of the stage `align`. Nothing here imports torch."""

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
    """Fine-tunes the model towards a teacher, block by block (Progressive Block Drop, CVPR 2025).

    The loss is task_weight * task loss + feature_weight * mean over remaining blocks of MSE(output, teacher's output) +
    class_weight * class term + segment_weight * segment term of the task. Other terms of the task have the weight 1.

    teacher: `static` (the default) is the unmodified model; `dynamic` is the model as it came into the stage or round.
    max_steps: number of training steps; 300 by default, more where validation still improves at the end.
    patience: validations without improvement over the best one of this training, after which training stops; null (the
        default) never stops early.
    select: `best` (the default) keeps the weights of the best validation, among which is the model before training;
        `last` keeps the last weights, whatever validation says.
    validate_every: steps between validations; 50 by default.
    batch_size: examples per step; 16 by default, smaller where the device runs out of memory.
    data_share: share of the training data to use, chosen by the seed; 1.0 by default, lower for faster training.
    learning_rate: highest learning rate of AdamW; 1e-3 by default, lower where the loss rises or is not finite.
    weight_decay: decoupled weight decay of AdamW; 0.05 by default.
    warmup_steps: steps of linear warm-up before the cosine decay of the learning rate; 20 by default.
    gradient_clip: largest norm of the gradient; 1.0 by default.
    ema_decay: decay per step of the averaged weights, which are validated and kept; 0.999 by default, 0 turns averaging
        off.
    task_weight: weight of the task's own loss; 1.0 by default, 0 to learn from the teacher alone.
    feature_weight: weight of the difference of block outputs; 1.0 by default, 0 if an earlier stage changed the width
        of the stream.
    class_weight, segment_weight: weights of the task's terms of these names; null (the default) is 1 if the task has
        the term. A number for a term that the task does not have is an error.
    temperature: softens classes before they are compared; 3.5 by default.
    class_loss: how classes are compared, `bernoulli` or `softmax`; null (the default) is the task's own form. The paper
        uses softmax, which is always zero for a single class.
    segment_loss: how segments are compared, `diou` (the default) or `giou`.
    trainable: `lora` (the default) trains low-rank adapters on linear layers inside blocks, merged afterwards, and the
        parts that the switches below name; `full` trains all weights.
    targets: names of the linear layers that get adapters; by default the usual names of attention layers. A shell
        pattern is compared with the last part of a name; a pattern with dots, with as many last parts.
    lora_rank: rank of the adapters; null (the default) is a quarter of the inputs of the layer.
    lora_alpha: scale of the adapters, which add lora_alpha / lora_rank * B A x; null (the default) is the rank, which
        is the paper's alpha of 1 without division by the rank.
    train_norms: whether all norms are trained; true by default.
    train_embedding: whether what acts before the first block is trained; true by default.
    train_head: whether what acts after the last block is trained; true by default.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
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
    data_share: Ratio = 1.0
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
        """Returns True, because the stage trains."""
        return True

    def in_words(self) -> str:
        """Returns the teacher, what is trained, the loss and the number of steps in one phrase."""
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
        """Returns the seconds of training and validation."""
        return costs.training_s(self.max_steps, self.validate_every)
