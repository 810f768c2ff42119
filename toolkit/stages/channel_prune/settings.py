"""Settings of the stage `channel_prune`. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Config, Positive, Ratio, refuse_changed, refuse_twice

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
