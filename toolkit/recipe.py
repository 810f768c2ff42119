"""Recipes: the whole intent of one run, as data. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on a stage's position.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from toolkit.config import Config
from toolkit.zoo.config import ZooModel

RECIPE_VERSION: Final = 1
ATTENTION_LAYERS: Final = ("q", "k", "v", "qkv", "proj", "query", "key", "value")

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]
Version = Annotated[int, Field(strict=True, ge=1, le=1)]  # Literal[1] would let 1.0 and true pass
Family = Literal["none", "depth", "width", "combined"]


def _refuse_twice(name: str, values: tuple[object, ...]) -> None:
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ValueError(f"{name} has {twice[0]} twice")


class Align(Config):
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
    """

    type: Literal["align"] = "align"
    teacher: Literal["static", "dynamic"] = "static"
    max_steps: Positive = 300
    patience: Positive | None = None
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
        names = ("targets", "lora_rank", "lora_alpha", "train_norms", "train_embedding", "train_head")
        changed = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if self.trainable == "full" and changed:
            raise ValueError(f"{', '.join(changed)}: only with trainable: lora; full trains all weights")
        return self


class BlockDrop(Config):
    """Remove whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Dropping stops at `num_blocks` removed in this stage or at `macs_ratio` (at most one of them), and, or instead, when
    a round takes the validation metric more than `max_quality_drop` below the dense model's; that round is undone.
    `align` trains what is left after every round; its `data_share` holds for the first half of `num_blocks` rounds.
    `one_shot` is a control: all blocks are chosen from the first scores, and aligned once, for as many steps in all.
    The criterion `random` is a control. `reuse_prefix` computes what the candidates share once (same scores, more
    memory); `racing` scores on growing parts of the scoring set and drops the worse half of the candidates each time;
    `verify_selection` also scores every block the naive way, to report whether the choice is the same.
    """

    type: Literal["block_drop"] = "block_drop"
    num_blocks: Positive | None = None
    macs_ratio: Ratio | None = None
    max_quality_drop: Annotated[float, Field(ge=0.0)] | None = None
    schedule: Literal["progressive", "one_shot"] = "progressive"
    criterion: Literal["task_metric", "loss", "block_mse", "random"] = "task_metric"
    reuse_prefix: bool = True
    racing: Literal["none", "successive_halving"] = "none"
    verify_selection: bool = False
    repair: Literal["closed_form", "none"] = "closed_form"
    align: Align | None = None
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> BlockDrop:
        if self.num_blocks is not None and self.macs_ratio is not None:
            raise ValueError("give only one of num_blocks and macs_ratio")
        if self.num_blocks is None and self.macs_ratio is None and self.max_quality_drop is None:
            raise ValueError("give num_blocks, macs_ratio or max_quality_drop: where dropping stops")
        if self.schedule == "one_shot" and self.num_blocks is None:
            raise ValueError("schedule one_shot needs num_blocks")
        return self

    @model_validator(mode="after")
    def _racing_has_a_use(self) -> BlockDrop:
        if self.racing != "none" and self.criterion in ("block_mse", "random"):
            raise ValueError(f"racing has no use with criterion {self.criterion}, which runs no candidate")
        return self


WidthKind = Literal["mlp", "heads", "head_dim", "conv", "embedding"]
FORMER_SCOPE: Final = ("mlp", "heads")  # was the default, and is written out in records of that time
WIDTH_KINDS: Final[tuple[WidthKind, ...]] = ("mlp", "heads", "head_dim", "conv", "embedding")


class Keep(Config):
    """Share of each kind of channel to keep, of the unmodified model's width; 1.0 leaves the kind alone.

    `mlp`: hidden units between two linear layers. `heads`, `head_dim`: attention heads, and the width of each.
    `conv`: channels between two convolutions, inside a residual block or outside all of them. `embedding`: the width
    of a residual stream, which all blocks along it share (in a CNN: of a stage).
    """

    mlp: Ratio = 1.0
    heads: Ratio = 1.0
    head_dim: Ratio = 1.0
    conv: Ratio = 1.0
    embedding: Ratio = 1.0


class ChannelPrune(Config):
    """Make layers physically narrower: MLP hidden units, attention heads, head dimensions, convolutions, embeddings.

    Give exactly one target: `keep` ratios, or `macs_ratio`, reached by one common keep ratio over `scope` (null: mlp,
    heads and conv, as far as the model has them). `include` and `exclude` are patterns for the names of groups: a
    name, a shell pattern, or a regular expression after `re:`.
    `importance` ranks channels: by mean square activation, L1 or L2 norm of weights, first-order Taylor expansion of
    the loss (Molchanov et al., CVPR 2019), BatchNorm scale (Liu et al., ICCV 2017), the Newton score of the consumer's
    error (after Numerical Pruning, arXiv 2412.12441), or at random.
    `allocation`: the same share of every group (uniform), or the best channels of all groups (global), or of all
    groups whose layers have the same types and shapes (isomorphic; after Fang et al., ECCV 2024).
    Widths are rounded to the nearest multiple of `round_to`, at least one (heads: to whole heads). A miss of
    `macs_ratio` by more than `macs_tolerance`, or of a kind's `keep` by more than `keep_tolerance`, is an error.
    `batch_norm`: running statistics are estimated again on calibration data after the cut, or kept.
    """

    type: Literal["channel_prune"] = "channel_prune"
    keep: Keep | None = None
    macs_ratio: Ratio | None = None
    macs_tolerance: Ratio = 0.02
    keep_tolerance: Ratio = 0.1
    scope: Annotated[tuple[WidthKind, ...], Field(min_length=1, strict=False)] | None = None
    include: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("*",)
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    importance: Literal["activation", "l1", "l2", "taylor", "bn_gamma", "newton", "random"] = "activation"
    allocation: Literal["uniform", "global", "isomorphic"] = "uniform"
    round_to: Positive = 4
    repair: Literal["closed_form", "none"] = "closed_form"
    batch_norm: Literal["reestimate", "keep"] = "reestimate"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> ChannelPrune:
        if (self.keep is None) == (self.macs_ratio is None):
            raise ValueError("give exactly one of keep and macs_ratio")
        if self.keep is not None and self.scope not in (None, FORMER_SCOPE):
            raise ValueError("scope goes with macs_ratio, not with keep")
        if self.keep is not None and self.macs_tolerance != type(self).model_fields["macs_tolerance"].default:
            raise ValueError("macs_tolerance goes with macs_ratio, not with keep")
        if self.macs_ratio is not None and self.keep_tolerance != type(self).model_fields["keep_tolerance"].default:
            raise ValueError("keep_tolerance goes with keep, not with macs_ratio")
        _refuse_twice("scope", self.scope or ())
        return self


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


Stage = Annotated[BlockDrop | ChannelPrune | Recover | Align, Field(discriminator="type")]
STAGE_TYPES = ("block_drop", "channel_prune", "recover", "align")


class Measure(Config):
    """What is measured after every stage. Latency: `repeats` samples per batch size, after `warmup` untimed calls."""

    batch_sizes: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False)] = (1, 16)
    threads: Positive = 2
    repeats: Annotated[int, Field(ge=3)] = 40
    warmup: Annotated[int, Field(ge=0)] = 5
    splits: Annotated[tuple[Literal["validation", "test"], ...], Field(min_length=1, strict=False)] = (
        "validation",
        "test",
    )

    @model_validator(mode="after")
    def _once_each(self) -> Measure:
        _refuse_twice("batch_sizes", self.batch_sizes)
        _refuse_twice("splits", self.splits)
        return self


class Recipe(Config):
    """One run: a trained model (named by its task), the stages applied to it in order, and what is measured.

    `model` is given for task `zoo`, whose model it says, and for no other.
    """

    version: Literal[1] = RECIPE_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    task: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    device: Literal["cpu", "cuda"]
    model: ZooModel | None = None
    stages: Annotated[tuple[Stage, ...], Field(strict=False)]
    measure: Measure

    @model_serializer(mode="wrap")
    def _without_no_model(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes of other tasks are written, and hashed, without the key."""
        return {key: value for key, value in handler(self).items() if key != "model" or value is not None}

    @property
    def family(self) -> Family:
        """Which axis the recipe cuts, derived from its stages."""
        depth = any(isinstance(stage, BlockDrop) for stage in self.stages)
        width = any(isinstance(stage, ChannelPrune) for stage in self.stages)
        return "combined" if depth and width else "depth" if depth else "width" if width else "none"

    @property
    def sha256(self) -> str:
        """Hash of the resolved recipe (all defaults filled in), the same on every machine."""
        return content_sha256(self.model_dump(mode="json"))


def content_sha256(content: Any) -> str:
    """Hash of plain JSON, whatever the order of its keys and its layout in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
