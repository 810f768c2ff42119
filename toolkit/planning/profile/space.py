"""Finds what can be changed in a model, and the widths that planning tries for each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from toolkit.blocks.find import find_blocks
from toolkit.blocks.ways import faults_on_paths
from toolkit.channels.find import find_groups, without_modules
from toolkit.channels.groups import ChannelGroup, Structure
from toolkit.hooks.paths import Path
from toolkit.planning.profile.bypasses import bypass_ranks
from toolkit.planning.tables import Width
from toolkit.record.plan import Rank
from toolkit.stages.channel_prune.settings import Heads
from toolkit.stages.channel_prune.widths import rounded

SHARES = tuple(eighths / 8 for eighths in range(7, 0, -1))  # shares of a group's channels that are tried

HEAD_SHARES = (0.75, 0.5, 0.25)  # shares of the heads that are tried

STREAM_SHARES = (0.75, 0.5)  # shares of the residual stream's width that are tried

UNMODIFIED = "stream 1"


@dataclass(frozen=True)
class Space:
    """Holds what plans choose from.

    widths: the candidate widths of each independent group, full width first.
    streams: by the label of the context, the widths of the groups of the residual stream, which are cut together.
    bypasses: the ranks of the bypasses that can take the place of each block.
    """

    blocks: tuple[str, ...]
    structure: Structure
    widths: dict[str, tuple[Width, ...]]
    streams: dict[str, dict[str, int]]
    bypasses: dict[str, tuple[Rank, ...]] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, ChannelGroup]:
        """Returns all groups by name."""
        return {group.name: group for group in self.structure.groups}

    def home(self, name: str) -> str | None:
        """Returns the block that holds all layers of the group, or None if no block does."""
        layers = [slot.module for slot in self.groups[name].slots]
        inside = (block for block in self.blocks if all(f"{layer}.".startswith(f"{block}.") for layer in layers))
        return next(inside, None)


def find_space(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    protected: Sequence[str],
    round_to: int,
    *,
    bypass: bool = False,
    others: Sequence[Path] = (),
    routed: Mapping[str, str] | None = None,
) -> Space:
    """Returns the blocks and groups of a model, and the widths to try.

    The widths of channels are shares of the full width, rounded to multiples of `round_to`. The widths of attention are
    numbers of heads, and also half of each head's channels where those can be cut. All groups of the residual stream
    keep the same share.

    protected: names of layers whose width is kept.
    bypass: whether linear maps may take the place of blocks.
    others: more ways to run the model, on which drops and cuts must be right too.
    routed: modules that the model runs depending on values, which stay as they are; see `routed_modules`.
    """
    found = find_blocks(model, inputs)
    stays = {*faults_on_paths(model, found, others), *(routed or {})}
    blocks = [name for name in found if name not in stays]
    structure = without_modules(find_groups(model, inputs, found, protected, others), routed or {})
    widths = {group.name: _widths(group, round_to) for group in structure.groups if group.kind != "embedding"}
    streams: dict[str, dict[str, int]] = {UNMODIFIED: {}}
    wide = structure.of_kind("embedding")
    for share in STREAM_SHARES if wide else ():
        cut = {group.name: rounded(share * group.num_units, _units(group, round_to), group.num_units) for group in wide}
        if any(cut[group.name] < group.num_units for group in wide):
            streams[f"stream {share:g}"] = cut
    several = {name: candidates for name, candidates in widths.items() if len(candidates) > 1}
    bypasses = bypass_ranks(model, blocks, inputs) if bypass else {}
    return Space(tuple(blocks), structure, several, streams, bypasses)


def _widths(group: ChannelGroup, round_to: int) -> tuple[Width, ...]:
    if group.kind != "attention":
        tried = [rounded(share * group.num_units, _units(group, round_to), group.num_units) for share in SHARES]
        return tuple(dict.fromkeys([group.num_units, *tried]))
    heads = dict.fromkeys([group.num_units, *(max(1, round(share * group.num_units)) for share in HEAD_SHARES)])
    whole = [Heads(heads=number) for number in heads]
    if not group.dims_are_free or group.head_dim < 2:
        return tuple(whole)
    half = group.head_dim // 2
    return (*whole, *(Heads(heads=number, head_dim=half) for number in list(heads)[:3:2]))


def _units(group: ChannelGroup, round_to: int) -> int:
    return max(1, round_to // group.head_dim)
