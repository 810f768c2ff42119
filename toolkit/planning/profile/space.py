"""What can be changed in a model, and the widths that planning tries for it."""

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

SHARES = tuple(eighths / 8 for eighths in range(7, 0, -1))  # of a group's channels that stay

HEAD_SHARES = (0.75, 0.5, 0.25)  # of the heads

STREAM_SHARES = (0.75, 0.5)  # of the residual stream's width

UNMODIFIED = "stream 1"


@dataclass(frozen=True)
class Space:
    """`widths` of every group that is chosen on its own, the full one first; `streams`: of those cut together.

    bypasses: the ranks of the maps that can take the place of each block.
    """

    blocks: tuple[str, ...]
    structure: Structure
    widths: dict[str, tuple[Width, ...]]
    streams: dict[str, dict[str, int]]  # by the context's label
    bypasses: dict[str, tuple[Rank, ...]] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, ChannelGroup]:
        return {group.name: group for group in self.structure.groups}

    def home(self, name: str) -> str | None:
        """The block that holds all layers of the group."""
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
    """Blocks, groups and their widths: shares of the channels, rounded to `round_to`; whole heads, and half of their
    channels where that can be cut. The residual stream keeps the same share everywhere.

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
    chosen = {name: own for name, own in widths.items() if len(own) > 1}
    bypasses = bypass_ranks(model, blocks, inputs) if bypass else {}
    return Space(tuple(blocks), structure, chosen, streams, bypasses)


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
