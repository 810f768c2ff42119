"""Defines the settings of the stage `channel_prune`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, model_validator

from toolkit.base.settings import Positive, Ratio, Settings, refuse_changed, refuse_twice
from toolkit.base.words import plain, setting
from toolkit.stages.channel_prune.detail import KIND_WORDS, ChannelPruneDetail
from toolkit.stages.contract import OF_UNMODIFIED, Axis, Earlier, StageFault, StageSettings, useless_macs_ratio
from toolkit.stages.detail import DetailClass
from toolkit.tasks.contract import TaskCard, TaskCosts

WidthKind = Literal["mlp", "heads", "head_dim", "conv", "embedding"]

FORMER_SCOPE: Final = ("mlp", "heads")  # a former default, which older records contain

WIDTH_KINDS: Final[tuple[WidthKind, ...]] = ("mlp", "heads", "head_dim", "conv", "embedding")

MOST_NAMED: Final = 4  # groups that a description of the stage names


class Keep(Settings):
    """Says what share of each kind of channel is kept, of the unmodified model's width; 1.0 (the default) cuts nothing.

    mlp: hidden units between two linear layers.
    heads: attention heads; where query heads share a key head, key heads with all their query heads.
    head_dim: channels of each attention head.
    conv: channels between two convolutions, inside of residual blocks or outside.
    embedding: width of a residual stream, which all blocks along it share (in a CNN: all blocks of a stage).
    """

    mlp: Ratio = 1.0
    heads: Ratio = 1.0
    head_dim: Ratio = 1.0
    conv: Ratio = 1.0
    embedding: Ratio = 1.0


WidthRepair = Literal["closed_form", "all_layers", "none"]

Importance = Literal["activation", "l1", "l2", "taylor", "bn_gamma", "newton", "wanda", "obs", "random"]


class Heads(Settings):
    """Says what is left of an attention layer.

    heads: number of heads that stay.
    head_dim: number of channels that stay in each head; null (the default) keeps all.
    """

    heads: Positive
    head_dim: Positive | None = None


class ChannelPrune(StageSettings):
    """Makes layers narrower: MLP hidden units, attention heads, head dimensions, convolutions, embeddings.

    Give exactly one target: `keep`, `macs_ratio` or `widths`.

    keep: share of each kind of channel to keep, of the unmodified model's width; null by default.
    macs_ratio: share of the unmodified model's multiply-adds to reach, above 0 and at most 1; null by default. One
        common keep ratio over `scope` is searched, and widths of single groups where the ratio steps over the target.
    widths: exact number of channels of each named group; null by default. `python -m toolkit.inspect` lists the groups;
        an attention takes `{heads: 2, head_dim: 8}`.
    macs_tolerance: largest miss of `macs_ratio`, as an absolute difference; 0.02 by default. A larger miss is an error.
    keep_tolerance: largest miss of a ratio in `keep`, as an absolute difference; 0.1 by default. A larger miss is an
        error.
    scope: kinds of channels that `macs_ratio` may cut; null (the default) is mlp, heads and conv, as far as the model
        has them.
    include, exclude: patterns for names of groups that are cut or not: a name, a shell pattern, or a regular expression
        after `re:`; all groups are cut by default.
    importance: how channels are ranked. `activation` (the default): mean square. `l1`, `l2`: norm of the weights.
        `taylor`: first-order Taylor expansion of the loss (Molchanov et al., CVPR 2019). `bn_gamma`: BatchNorm scale
        (Liu et al., ICCV 2017). `newton`: Newton score of the consumer's error (after Numerical Pruning, arXiv
        2412.12441). `wanda`: mean square times the consumer's squared weights (arXiv 2306.11695). `obs`: the consumer's
        error after a refit without the channel and all lesser ones (Optimal Brain Surgeon); the best one where layers
        are repaired. `random`: a control.
    allocation: `uniform` (the default) keeps the same share of every group; `global` keeps the best channels of all
        groups; `isomorphic` the best of all groups whose layers have the same types and shapes (after Fang et al., ECCV
        2024).
    round_to: widths are rounded to the nearest multiple of this number, at least one, and heads to whole heads; 8 by
        default, lower where a target is missed.
    repair: `closed_form` (the default) refits the layers that read cut channels by least squares; `all_layers` refits
        all layers behind the first cut or dropped block, in about twice the time; `none` refits nothing.
    batch_norm: `reestimate` (the default) estimates running statistics behind the first cut again on calibration data;
        `keep` does not. A BatchNorm that reads a refitted layer is fitted with that layer.
    allow_no_change: whether a stage that changes nothing is accepted; false (the default) makes it an error.
    """

    axis: ClassVar[Axis | None] = "width"
    detail: ClassVar[DetailClass] = ChannelPruneDetail
    if_slower: ClassVar[str] = "other widths (round_to, heads instead of head_dim) or fewer blocks may serve better"

    type: Literal["channel_prune"] = "channel_prune"
    keep: Keep | None = None
    macs_ratio: Ratio | None = None
    widths: Annotated[dict[str, Positive | Heads], Field(min_length=1)] | None = None
    macs_tolerance: Ratio = 0.02
    keep_tolerance: Ratio = 0.1
    scope: Annotated[tuple[WidthKind, ...], Field(min_length=1, strict=False)] | None = None
    include: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("*",)
    exclude: Annotated[tuple[str, ...], Field(strict=False)] = ()
    importance: Importance = "activation"
    allocation: Literal["uniform", "global", "isomorphic"] = "uniform"
    round_to: Positive = 8
    repair: WidthRepair = "closed_form"
    batch_norm: Literal["reestimate", "keep"] = "reestimate"
    allow_no_change: bool = False

    @model_validator(mode="after")
    def _one_target(self) -> ChannelPrune:
        if sum(target is not None for target in (self.keep, self.macs_ratio, self.widths)) != 1:
            raise ValueError("give exactly one of keep, macs_ratio and widths")
        if self.widths is not None:
            compatible = ("type", "widths", "importance", "repair", "batch_norm", "allow_no_change")
            refuse_changed(
                self,
                [name for name in type(self).model_fields if name not in compatible],
                "cannot be combined with `widths`, which already says what every group keeps",
            )
        if self.keep is not None and self.scope not in (None, FORMER_SCOPE):
            raise ValueError("scope goes with macs_ratio, not with keep")
        if self.keep is not None and self.macs_tolerance != type(self).model_fields["macs_tolerance"].default:
            raise ValueError("macs_tolerance goes with macs_ratio, not with keep")
        if self.macs_ratio is not None and self.keep_tolerance != type(self).model_fields["keep_tolerance"].default:
            raise ValueError("keep_tolerance goes with keep, not with macs_ratio")
        refuse_twice("scope", self.scope or ())
        return self

    @property
    def target_macs_ratio(self) -> float | None:
        """Returns `macs_ratio`."""
        return self.macs_ratio

    def in_words(self) -> str:
        """Returns the target, the ranking and the repair in one phrase."""
        repaired = {"closed_form": "the layers that read them", "all_layers": "all layers behind the first cut"}
        repair = "" if self.repair == "none" else f"; {repaired[self.repair]} are repaired by least squares"
        rounding = "" if self.widths is not None else f"; widths are rounded to a multiple of {self.round_to}"
        return f"makes layers narrower: {self._target_in_words()} (importance: {self.importance}{rounding}){repair}"

    def _target_in_words(self) -> str:
        if self.widths is not None:
            named = [
                f"{plain(name)} to {_width_in_words(width)}" for name, width in list(self.widths.items())[:MOST_NAMED]
            ]
            more = f" and {len(self.widths) - MOST_NAMED} more" if len(self.widths) > MOST_NAMED else ""
            return f"cuts {', '.join(named)}{more}"
        if self.macs_ratio is not None:
            kinds = ", ".join(KIND_WORDS[kind] for kind in self.scope or ()) or "all channels inside blocks"
            return f"{kinds}, down to {setting(self.macs_ratio)} of the dense MACs (multiply-adds)"
        shares = [f"{setting(ratio)} of the {KIND_WORDS[kind]}" for kind, ratio in self.keep or Keep() if ratio < 1.0]
        return f"keeps {', '.join(shares) or 'every channel'}"

    def faults(self, card: TaskCard | None, earlier: Earlier) -> Iterator[StageFault]:
        """Yields targets that are already reached, and kinds of channels that the model of the task does not have."""
        if not self.allow_no_change:
            yield from useless_macs_ratio(self.macs_ratio, earlier)
            yield from self._useless_keep(earlier)
        if card is None or card.kinds is None:
            return
        for place, kind in self._kinds_used():
            if kind not in card.kinds:
                message = f'{card.name} has no channels of kind "{kind}"; choose one of: {", ".join(card.kinds)}'
                yield place, message

    def _useless_keep(self, earlier: Earlier) -> Iterator[StageFault]:
        """Yields a fault if every kind of channel in `keep` is already that narrow."""
        if self.keep is None:
            return
        shares = dict.fromkeys(Keep.model_fields, 1.0)
        for stage in earlier.values():
            if isinstance(stage, ChannelPrune) and stage.keep is not None:
                shares |= {kind: ratio for kind, ratio in stage.keep if ratio < shares[kind]}
        if not any(ratio < shares[kind] for kind, ratio in self.keep):
            reached = ", ".join(f"{kind} {ratio}" for kind, ratio in shares.items())
            message = f"would change nothing: {OF_UNMODIFIED}, which is then at {reached}; give a kind less than that"
            yield ("keep",), f"{message} or set allow_no_change: true"

    def _kinds_used(self) -> list[tuple[tuple[str | int, ...], str]]:
        if self.keep is not None:
            return [(("keep", kind), kind) for kind, ratio in self.keep if ratio < 1.0]
        return [(("scope", position), kind) for position, kind in enumerate(self.scope or ())]

    def estimate_s(self, costs: TaskCosts, num_blocks: int, dense_blocks: int) -> float:
        """Returns the seconds that the task gives for one cut."""
        return costs.prune_s


def _width_in_words(width: int | Heads) -> str:
    if isinstance(width, int):
        return str(width)
    return f"{width.heads} heads" + ("" if width.head_dim is None else f" of {width.head_dim}")
