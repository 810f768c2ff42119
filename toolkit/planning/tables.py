"""Holds what a planner knows of a model as plain numbers: the cost and the loss of every single change. No torch here.

A loss is the task's `loss`, or the `distance` of the predictions to the dense model's: the sum of the task's alignment
terms, which needs no labels. Losses are computed on training data, or on validation data, whose labels the model has
not memorised. The loss of a plan is approximated by the sum of the losses of its changes.

`PlanCosts` are shares of the dense model's costs, by resource: `macs`, `params`, and latencies by key, such as
`latency@cpu_batch16`. Costs add up within a *context*, which is one width of the residual stream. The width of the
stream changes the cost of everything else, so every context has its own table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import Field, model_validator

from toolkit.base.settings import Data
from toolkit.measure.results import MeasurementKey
from toolkit.record.plan import Rank
from toolkit.stages.channel_prune.settings import Heads

PlanCosts = dict[str, float]

Width = int | Heads

Drops = Mapping[str, Rank | None]  # dropped blocks, each with the rank of the bypass in its place; None: no bypass

Removal = tuple[str, int | None]  # a dropped block, and the index of its bypass in `PlanBlock.bypasses`

MACS, PARAMS = "macs", "params"


def latency_of(key: MeasurementKey) -> str:
    """Returns the resource name of a latency, such as `latency@cpu_batch16`."""
    return f"latency@{key.text}"


class PlanBypass(Data):
    """Describes a linear map of the stream that can take the place of a block.

    loss: what replacing the block by the map adds to the loss of the dense model.
    """

    rank: Rank
    loss: float


class PlanBlock(Data):
    """Describes a residual block that can be dropped.

    loss: what dropping the block and repairing the model adds to the loss of the dense model.
    bypasses: the maps that can take the place of the block.
    """

    name: str
    loss: float
    bypasses: tuple[PlanBypass, ...] = ()


class PlanGroup(Data):
    """Describes a group of channels that can be cut.

    block: the residual block that holds all layers of the group; None if no block does.
    widths: the candidate widths, the full one first.
    losses: what each width adds to the loss of the dense model, 0 for the full one.
    """

    name: str
    kind: str
    block: str | None
    widths: tuple[Width, ...]
    losses: tuple[float, ...]

    @model_validator(mode="after")
    def _one_loss_each(self) -> PlanGroup:
        if len(self.widths) != len(self.losses) or self.losses[0] != 0.0:
            raise ValueError(f"{self.name}: losses must hold one number for each width, and 0 for the full width")
        return self


class Context(Data):
    """Holds the costs of one width of the residual stream.

    label: the name of the context.
    widths: the width of every group of the stream; empty for the unmodified stream.
    loss: what the narrower stream adds to the loss of the dense model.
    rest: the cost of everything outside the blocks.
    blocks: the cost of each block at full width.
    groups: the cost change of each width of a group, 0 for the full width and negative where the width saves.
    bypasses: the cost of each bypass of a block.
    """

    label: str
    widths: dict[str, int]
    loss: float
    rest: PlanCosts
    blocks: dict[str, PlanCosts]
    groups: dict[str, tuple[PlanCosts, ...]]
    bypasses: dict[str, tuple[PlanCosts, ...]] = Field(default_factory=dict)


class Tables(Data):
    """Holds the losses and costs of all single changes of one model.

    `counts_add_up`: sums of multiply-adds and parameters are exact; not so where groups share a layer.
    `macs_are_partial`: some of the dense model's operators have no count, so that its multiply-adds are no resource.
    """

    dense_loss: float
    blocks: tuple[PlanBlock, ...]
    groups: tuple[PlanGroup, ...]
    contexts: tuple[Context, ...]
    counts_add_up: bool = True
    macs_are_partial: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Tables:
        names = {block.name for block in self.blocks}
        for context in self.contexts:
            if set(context.blocks) != names or set(context.groups) != {group.name for group in self.groups}:
                raise ValueError(f"context {context.label} must have a cost for each block and each group")
            if any(len(context.bypasses.get(block.name, ())) != len(block.bypasses) for block in self.blocks):
                raise ValueError(f"context {context.label} must have a cost for each bypass")
        if not self.contexts or self.contexts[0].widths:
            raise ValueError("the first context must be that of the unmodified stream, without widths")
        return self


def without_bypasses(tables: Tables) -> Tables:
    """Returns the tables without the bypasses of the blocks."""
    blocks = tuple(block.model_copy(update={"bypasses": ()}) for block in tables.blocks)
    contexts = tuple(context.model_copy(update={"bypasses": {}}) for context in tables.contexts)
    return tables.model_copy(update={"blocks": blocks, "contexts": contexts})


@dataclass(frozen=True)
class Plan:
    """Describes a plan by indices into its tables.

    context: the index in `Tables.contexts`.
    dropped: the names of the dropped blocks.
    levels: the index of the width in `PlanGroup.widths`, for each group that is cut.
    bypassed: the index of the bypass in `PlanBlock.bypasses`, for each dropped block that a bypass replaces.
    """

    context: int = 0
    dropped: frozenset[str] = frozenset()
    levels: Mapping[str, int] = field(default_factory=dict)
    bypassed: Mapping[str, int] = field(default_factory=dict)

    def key(self) -> tuple[object, ...]:
        """Returns a value that is the same for equal plans, whatever the order of their mappings."""
        maps = (tuple(sorted(indices.items())) for indices in (self.levels, self.bypassed))
        return self.context, tuple(sorted(self.dropped)), *maps

    def __hash__(self) -> int:
        return hash(self.key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key() == other.key()


def make_plan(tables: Tables, context: int, removed: Iterable[Removal], levels: Mapping[str, int]) -> Plan:
    """Returns the plan with these changes; full widths, and widths of groups inside dropped blocks, are left out."""
    bypass_of = dict(removed)
    home = {group.name: group.block for group in tables.groups}
    valid = {name: level for name, level in levels.items() if level and home[name] not in bypass_of}
    bypassed = {name: index for name, index in bypass_of.items() if index is not None}
    return Plan(context, frozenset(bypass_of), valid, bypassed)


def removed_by(choice: Plan) -> dict[str, int | None]:
    """Returns the dropped blocks in alphabetical order, each with the index of its bypass or None."""
    return {name: choice.bypassed.get(name) for name in sorted(choice.dropped)}


def removals(tables: Tables) -> list[Removal]:
    """Returns every way to drop a block: block by block, first without a bypass, then with each of its bypasses."""
    return [(block.name, index) for block in tables.blocks for index in (None, *range(len(block.bypasses)))]


def removal_losses(block: PlanBlock) -> list[float]:
    """Returns what every way to drop the block adds to the loss, in the order of `removals`."""
    return [block.loss, *(bypass.loss for bypass in block.bypasses)]


def cost(tables: Tables, choice: Plan, resource: str) -> float:
    """Returns what the plan takes of a resource, as a share of what the dense model takes."""
    context = tables.contexts[choice.context]
    total = context.rest[resource]
    total += sum(costs[resource] for name, costs in context.blocks.items() if name not in choice.dropped)
    total += sum(context.bypasses[name][index][resource] for name, index in choice.bypassed.items())
    return total + sum(context.groups[name][level][resource] for name, level in choice.levels.items())


def added_loss(tables: Tables, choice: Plan) -> float:
    """Returns the sum of what each change of the plan alone adds to the dense model's loss."""
    total = tables.contexts[choice.context].loss
    for block in tables.blocks:
        if block.name in choice.bypassed:
            total += block.bypasses[choice.bypassed[block.name]].loss
        elif block.name in choice.dropped:
            total += block.loss
    return total + sum(group.losses[choice.levels.get(group.name, 0)] for group in tables.groups)


def drops_of(tables: Tables, choice: Plan) -> dict[str, Rank | None]:
    """Returns the dropped blocks in the order of execution, in which they are repaired, with the rank of each bypass.

    A rank of None stands for a block without a bypass in its place.
    """
    dropped = [block for block in tables.blocks if block.name in choice.dropped]
    index = choice.bypassed
    return {block.name: block.bypasses[index[block.name]].rank if block.name in index else None for block in dropped}


def in_runs(drops: Drops) -> list[tuple[Rank | None, tuple[str, ...]]]:
    """Returns the dropped blocks in runs of neighbours whose bypasses have the same rank; a run becomes one stage."""
    runs = itertools.groupby(drops, key=lambda name: drops[name])
    return [(rank, tuple(names)) for rank, names in runs]


def halves(drops: Drops, order: str, is_narrower: bool) -> tuple[Drops, Drops]:
    """Returns the blocks that are dropped before the widths are cut, and those that are dropped after.

    order: one of `ORDERS`.
    is_narrower: whether the plan cuts a width; without one, all blocks are dropped in the first half.
    """
    number = len(drops)
    before = {"depth_then_width": number, "width_then_depth": 0, "interleaved": number // 2}[order]
    first = list(drops)[: before if is_narrower else number]
    return {name: drops[name] for name in first}, {name: rank for name, rank in drops.items() if name not in first}


def widths_of(tables: Tables, choice: Plan) -> dict[str, Width]:
    """Returns the width of every group that is cut, as `ChannelPrune.widths` takes them."""
    cut = {
        group.name: group.widths[choice.levels[group.name]] for group in tables.groups if group.name in choice.levels
    }
    return {**tables.contexts[choice.context].widths, **cut}
