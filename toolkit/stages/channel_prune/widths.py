"""Decides how many channels every group keeps: a share of the unmodified width, divided among groups, rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.channels.cut import KeptUnits
from toolkit.channels.groups import ChannelGroup, Patch
from toolkit.channels.layers import num_outputs
from toolkit.stages.channel_prune.settings import WIDTH_KINDS, ChannelPrune, Heads, Keep, WidthKind
from toolkit.stages.detail import CutGroup

Scores = Mapping[str, Tensor]  # [units, channels of each] by the name of a group

LEAST_SHARE = 0.1  # share of its width that every group keeps at least if groups are ranked as one


@dataclass(frozen=True)
class Cut:
    """Holds the new width of one group.

    kind: key of `Keep`.
    original: width in the unmodified model.
    before: width before the cut.
    asked: width before rounding.
    kept: width after the cut.
    """

    group: ChannelGroup
    kind: WidthKind
    original: int
    before: int
    asked: float
    kept: int

    def detail(self, choice: KeptUnits) -> CutGroup:
        """Returns the cut for the record."""
        return CutGroup(
            name=self.group.name,
            kind=self.kind,
            original=self.original,
            before=self.before,
            asked=self.asked,
            kept=self.kept,
            indices=tuple(choice.kept(self.group.reader)),
        )


def kinds_of(group: ChannelGroup) -> tuple[WidthKind, ...]:
    """Returns the keys of `Keep` that apply to a group."""
    if group.kind != "attention":
        return (group.kind,)
    return ("heads", "head_dim") if group.dims_are_free else ("heads",)


def rounded(asked: float, multiple: int, current: int) -> int:
    """Returns the multiple nearest to `asked`, at least one multiple, and at most `current`."""
    if asked >= current:
        return current
    return min(max(multiple, multiple * round(asked / multiple)), current)


def plan_cuts(
    groups: Sequence[ChannelGroup], dense: nn.Module, keep: Keep, config: ChannelPrune, scores: Scores
) -> list[Cut]:
    """Returns the new width of every group.

    An attention group has one entry for its heads and one for its head dimensions.
    """
    cuts = []
    for kind in WIDTH_KINDS:
        ratio: float = getattr(keep, kind)
        groups_of_kind = [group for group in groups if kind in kinds_of(group)]
        for group, asked in _share_out(groups_of_kind, kind, ratio, dense, config, scores):
            original, current = original_width(dense, group, kind), width_now(group, kind)
            cuts.append(
                Cut(group, kind, original, current, asked, rounded(asked, _multiple(group, kind, config), current))
            )
    order = {group.name: place for place, group in enumerate(groups)}
    return sorted(cuts, key=lambda cut: order[cut.group.name])


def _multiple(group: ChannelGroup, kind: WidthKind, config: ChannelPrune) -> int:
    return 1 if kind == "heads" else _units_of(config.round_to, group, kind)


def possible_widths(cut: Cut, config: ChannelPrune) -> tuple[int, ...]:
    """Returns all widths that rounding can give the group, from the narrowest one to the current one."""
    multiple = _multiple(cut.group, cut.kind, config)
    return tuple(dict.fromkeys([*range(multiple, cut.before, multiple), cut.before]))


def given_cuts(groups: Sequence[ChannelGroup], dense: nn.Module, widths: Mapping[str, int | Heads]) -> list[Cut]:
    """Returns exactly the given widths, which are by the name of a group.

    Raises:
        StageError: a group is narrower than that, or the width has the wrong form for it.
    """
    cuts = []
    for group in groups:
        wanted = widths[group.name]
        if isinstance(wanted, Heads) != (group.kind == "attention"):
            form = "{heads: H, head_dim: D}" if group.kind == "attention" else "a number of channels"
            raise StageError(f"widths: {group.name} takes {form}, not {wanted}")
        asked: dict[WidthKind, int] = {}
        if isinstance(wanted, Heads):
            asked["heads"] = wanted.heads
            if wanted.head_dim is not None and wanted.head_dim != group.head_dim:
                asked["head_dim"] = wanted.head_dim
        elif group.kind != "attention":
            asked[group.kind] = wanted
        for kind, kept in asked.items():
            current = width_now(group, kind)
            if kept > current or kind not in kinds_of(group):
                limit = f"it has {current}" if kind in kinds_of(group) else f"its {kind} cannot be cut"
                raise StageError(f"widths: {group.name} cannot keep {kept} {kind}: {limit}")
            cuts.append(Cut(group, kind, original_width(dense, group, kind), current, float(kept), kept))
    return cuts


def _units_of(channels: int, group: ChannelGroup, kind: WidthKind) -> int:
    """Returns a number of channels as a number of units; channels in a group of a grouped convolution form one unit."""
    return channels if kind == "head_dim" else max(1, channels // group.head_dim)


def width_now(group: ChannelGroup, kind: WidthKind) -> int:
    """Returns the current number of units, or of channels per head."""
    return group.head_dim if kind == "head_dim" else group.num_units


def original_width(dense: nn.Module, group: ChannelGroup, kind: WidthKind) -> int:
    """Returns the number of units, or of channels per head, in the unmodified model."""
    writer = next(slot for slot in group.slots if slot.role == "out")
    growth = (
        num_outputs(dense.get_submodule(writer.module)) - len(writer.shared)
    ) / writer.size  # ratio of the former width to the current one
    heads = growth * group.num_units
    if group.kind == "attention":  # the width of heads may have changed too
        counts = {patch.follows: patch for patch in reversed(group.patches) if patch.value}
        if "units" in counts:
            heads = group.num_units * _growth(dense, counts["units"])
        elif "channels" in counts:
            heads /= _growth(dense, counts["channels"])
    return round(heads if kind != "head_dim" else group.head_dim * growth * group.num_units / heads)


def _growth(dense: nn.Module, patch: Patch) -> float:
    """Returns how many times as large an attribute is in the unmodified model."""
    return float(getattr(dense.get_submodule(patch.module), patch.attribute)) / patch.value


def _share_out(
    groups: Sequence[ChannelGroup],
    kind: WidthKind,
    ratio: float,
    dense: nn.Module,
    config: ChannelPrune,
    scores: Scores,
) -> list[tuple[ChannelGroup, float]]:
    """Returns the units that each group keeps, before rounding.

    Each group keeps its own share, or its part of a pool of groups that is ranked as one.
    """
    shares = {group.name: ratio * original_width(dense, group, kind) for group in groups}
    if config.allocation == "uniform" or kind == "head_dim" or ratio == 1.0:
        return [(group, shares[group.name]) for group in groups]
    pools: dict[str, list[ChannelGroup]] = {}
    for group in groups:
        pools.setdefault(group.signature if config.allocation == "isomorphic" else "", []).append(group)
    asked: dict[str, float] = {}
    for pool in pools.values():
        asked |= _rank_pool(pool, sum(shares[group.name] for group in pool), scores)
    return [(group, asked[group.name]) for group in groups]


def _rank_pool(pool: Sequence[ChannelGroup], budget: float, scores: Scores) -> dict[str, float]:
    """Returns how many of the `budget` best units of the pool each group has.

    Scores are relative to the mean of their group.
    """
    kept = {group.name: max(1, round(LEAST_SHARE * group.num_units)) for group in pool}
    spare: list[tuple[float, str]] = []
    for group in pool:
        units = scores[group.name].double().sum(1)
        relative = units / units.abs().mean().clamp(min=1e-30)
        best = relative.sort(descending=True).values[kept[group.name] :]
        spare += [(float(value), group.name) for value in best]
    num_left = max(0, round(budget) - sum(kept.values()))
    for _, name in sorted(spare, reverse=True)[:num_left]:
        kept[name] += 1
    return {name: float(count) for name, count in kept.items()}


def choose(cuts: Sequence[Cut], scores: Scores) -> list[KeptUnits]:
    """Returns the best units of every group, and in attention the best channels of each of them."""
    planned: dict[str, dict[str, int]] = {}
    groups = {cut.group.name: cut.group for cut in cuts}
    for cut in cuts:
        planned.setdefault(cut.group.name, {})[cut.kind] = cut.kept
    chosen = []
    for name, group in groups.items():
        group_scores = scores[name].detach().cpu()
        count = next((kept for kind, kept in planned[name].items() if kind != "head_dim"), group.num_units)
        units = tuple(group_scores.sum(1).topk(count).indices.sort().values.tolist())
        size = planned[name].get("head_dim", group.head_dim)
        inner = tuple(tuple(group_scores[unit].topk(size).indices.sort().values.tolist()) for unit in units)
        chosen.append(KeptUnits(group, units, inner if size < group.head_dim else ()))
    return chosen


def even_scores(groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
    """Returns equal scores, for trying widths where it does not matter which channels are removed."""
    return {group.name: torch.ones(group.num_units, group.head_dim) for group in groups}
