"""The stages that a recipe can name, and their settings. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on a stage's position.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from toolkit.config import Config

ATTENTION_LAYERS: Final = ("q", "k", "v", "qkv", "proj", "query", "key", "value")

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]


def refuse_twice(name: str, values: tuple[object, ...]) -> None:
    """Raises: ValueError: a value is given more than once."""
    twice = [value for index, value in enumerate(values) if value in values[:index]]
    if twice:
        raise ValueError(f"{name} has {twice[0]} twice")


def refuse_changed(config: Config, names: list[str], reason: str) -> None:
    """Raises: ValueError: a setting that would have no use differs from its default."""
    changed = [name for name in names if getattr(config, name) != type(config).model_fields[name].default]
    if changed:
        raise ValueError(f"{', '.join(changed)}: {reason}")


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
        names = ["targets", "lora_rank", "lora_alpha", "train_norms", "train_embedding", "train_head"]
        if self.trainable == "full":
            refuse_changed(self, names, "only with trainable: lora; full trains all weights")
        return self


class BlockDrop(Config):
    """Remove whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Dropping stops at `num_blocks` removed in this stage or at `macs_ratio` (at most one of them), and, or instead, when
    a round takes the validation metric more than `max_quality_drop` below the dense model's; that round is undone.
    Or it drops just the named `blocks`, in that order, one per round: nothing is scored.
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
    blocks: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] | None = None
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
        if self.blocks is not None:
            return self
        if self.num_blocks is not None and self.macs_ratio is not None:
            raise ValueError("give only one of num_blocks and macs_ratio")
        if self.num_blocks is None and self.macs_ratio is None and self.max_quality_drop is None:
            raise ValueError("give num_blocks, macs_ratio or max_quality_drop: where dropping stops; or blocks")
        if self.schedule == "one_shot" and self.num_blocks is None:
            raise ValueError("schedule one_shot needs num_blocks")
        return self

    @model_validator(mode="after")
    def _named_blocks_alone(self) -> BlockDrop:
        if self.blocks is not None:
            goes = ("type", "blocks", "repair", "align", "allow_no_change")
            refuse_changed(
                self, [name for name in type(self).model_fields if name not in goes], "no use here, blocks says it all"
            )
            refuse_twice("blocks", self.blocks)
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


class Heads(Config):
    """The width of an attention: how many heads stay, and how many channels of each (null: all)."""

    heads: Positive
    head_dim: Positive | None = None


class ChannelPrune(Config):
    """Make layers physically narrower: MLP hidden units, attention heads, head dimensions, convolutions, embeddings.

    Give exactly one target: `keep` ratios; or `macs_ratio`, reached by one common keep ratio over `scope` (null: mlp,
    heads and conv, as far as the model has them); or `widths`, what is left of each group that it names, to the unit
    (`python -m toolkit.inspect` lists the groups; an attention takes `{heads: 2, head_dim: 8}`). `include` and
    `exclude` are patterns for the names of groups: a name, a shell pattern, or a regular expression after `re:`.
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
    widths: Annotated[dict[str, Positive | Heads], Field(min_length=1)] | None = None
    macs_tolerance: Ratio = 0.02
    keep_tolerance: Ratio = 0.1
    scope: Annotated[tuple[WidthKind, ...], Field(min_length=1, strict=False)] | None = None
    include: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("*",)
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    importance: Literal["activation", "l1", "l2", "taylor", "bn_gamma", "newton", "random"] = "activation"
    allocation: Literal["uniform", "global", "isomorphic"] = "uniform"
    round_to: Positive = 8
    repair: Literal["closed_form", "none"] = "closed_form"
    batch_norm: Literal["reestimate", "keep"] = "reestimate"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> ChannelPrune:
        if sum(target is not None for target in (self.keep, self.macs_ratio, self.widths)) != 1:
            raise ValueError("give exactly one of keep, macs_ratio and widths")
        if self.widths is not None:
            goes = ("type", "widths", "importance", "repair", "batch_norm", "allow_no_change")
            refuse_changed(
                self, [name for name in type(self).model_fields if name not in goes], "no use here, widths says it all"
            )
        if self.keep is not None and self.scope not in (None, FORMER_SCOPE):
            raise ValueError("scope goes with macs_ratio, not with keep")
        if self.keep is not None and self.macs_tolerance != type(self).model_fields["macs_tolerance"].default:
            raise ValueError("macs_tolerance goes with macs_ratio, not with keep")
        if self.macs_ratio is not None and self.keep_tolerance != type(self).model_fields["keep_tolerance"].default:
            raise ValueError("keep_tolerance goes with keep, not with macs_ratio")
        refuse_twice("scope", self.scope or ())
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


class Reinitialise(Config):
    """A control: the architecture that is left, with new random weights, as if it had been built so.

    What `recover` then makes of it, with `alignment_weight: 0`, is a plain smaller model trained from scratch. Only
    after block drops: for layers of other shapes the task does not say how their weights are drawn.
    """

    type: Literal["reinitialise"] = "reinitialise"
    allow_no_change: bool = False


Stage = Annotated[BlockDrop | ChannelPrune | Recover | Align | Reinitialise, Field(discriminator="type")]
STAGE_TYPES = ("block_drop", "channel_prune", "recover", "align", "reinitialise")
