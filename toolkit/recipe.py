"""Recipes: the whole intent of one run, as data. Nothing here imports torch.

Every ratio is of the **unmodified** model, so its meaning does not depend on a stage's position.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RECIPE_VERSION: Final = 1

Ratio = Annotated[float, Field(gt=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Family = Literal["none", "depth", "width", "combined"]


class Config(BaseModel):
    """Base of everything a recipe holds: immutable, strictly typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class BlockDrop(Config):
    """Remove whole residual blocks, the least important one per round (Progressive Block Drop, CVPR 2025).

    Give exactly one target: `num_blocks` to remove in this stage, or `macs_ratio`, at which dropping stops.
    """

    type: Literal["block_drop"] = "block_drop"
    num_blocks: Positive | None = None
    macs_ratio: Ratio | None = None
    criterion: Literal["task_metric", "loss", "block_mse"] = "task_metric"
    repair: Literal["closed_form", "none"] = "closed_form"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> BlockDrop:
        if (self.num_blocks is None) == (self.macs_ratio is None):
            raise ValueError("give exactly one of num_blocks and macs_ratio")
        return self


class Keep(Config):
    """Share of each kind of channel to keep, of the unmodified model's width; 1.0 leaves the kind alone."""

    mlp: Ratio = 1.0
    heads: Ratio = 1.0
    head_dim: Ratio = 1.0


class ChannelPrune(Config):
    """Make layers physically narrower with torch-pruning: MLP hidden units, attention heads, head dimensions.

    Give exactly one target: `keep` ratios, or `macs_ratio`, reached by one common keep ratio over `scope`.
    Widths are rounded to a multiple of `round_to` (heads: to whole heads); a miss of `macs_ratio` by more than
    `macs_tolerance` is an error.
    """

    type: Literal["channel_prune"] = "channel_prune"
    keep: Keep | None = None
    macs_ratio: Ratio | None = None
    macs_tolerance: Ratio = 0.02
    scope: Annotated[tuple[Literal["mlp", "heads", "head_dim"], ...], Field(min_length=1, strict=False)] = (
        "mlp",
        "heads",
    )
    importance: Literal["activation", "l1", "l2", "random"] = "activation"
    round_to: Positive = 4
    repair: Literal["closed_form", "none"] = "closed_form"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> ChannelPrune:
        if (self.keep is None) == (self.macs_ratio is None):
            raise ValueError("give exactly one of keep and macs_ratio")
        if self.keep is not None and "scope" in self.model_fields_set and "macs_ratio" not in self.model_fields_set:
            raise ValueError("scope goes with macs_ratio; keep names its kinds of channel itself")
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


Stage = Annotated[BlockDrop | ChannelPrune | Recover, Field(discriminator="type")]
STAGE_TYPES = ("block_drop", "channel_prune", "recover")


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


class Recipe(Config):
    """One run: a trained model (named by its task), the stages applied to it in order, and what is measured."""

    version: Literal[1] = RECIPE_VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")]
    task: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    device: Literal["cpu", "cuda"]
    stages: Annotated[tuple[Stage, ...], Field(strict=False)]
    measure: Measure

    @property
    def family(self) -> Family:
        """Which axis the recipe cuts, derived from its stages."""
        depth = any(isinstance(stage, BlockDrop) for stage in self.stages)
        width = any(isinstance(stage, ChannelPrune) for stage in self.stages)
        return "combined" if depth and width else "depth" if depth else "width" if width else "none"

    @property
    def sha256(self) -> str:
        """Hash of the resolved recipe (all defaults filled in), the same on every machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
