"""What a planner knows of a model, as plain numbers: what every single change costs and loses. No torch here.

What is lost is the `loss` of the task, or the `distance` of the predictions to the dense model's: the task's alignment
terms, added up, which needs no labels. Either is found on training data, or on validation data, where models do not
remember the labels.

PlanCosts are shares of the dense model's, by resource: `macs`, `params`, and a latency by what it is of, such as
`latency@cpu_batch16`. They add up within a *context*, which is a width of the residual stream: everything else of the
model costs otherwise in another one, so every context has a table of its own. Losses add up over changes; that is the
approximation.
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

Drops = Mapping[
    str, Rank | None
]  # blocks that go, with the rank of the bypass in the place of each; None: nothing there

Removal = tuple[str, int | None]  # a block that goes, and the place of its bypass among those that it can have

MACS, PARAMS = "macs", "params"


def latency_of(key: MeasurementKey) -> str:
    """Returns the resource's name."""
    return f"latency@{key.text}"


class PlanBypass(Data):
    """A linear map of the stream in the place of a block; `loss` as in `PlanBlock`."""

    rank: Rank
    loss: float


class PlanBlock(Data):
    """A residual block that can be dropped; `loss` is what that adds to the task's loss, after its repair.

    bypasses: the maps that can take its place; dropping it puts nothing there.
    """

    name: str
    loss: float
    bypasses: tuple[PlanBypass, ...] = ()


class PlanGroup(Data):
    """Channels that can be cut to `widths`, the full one first; `losses` as in `PlanBlock`, 0 first.

    `block`: the residual block that holds all of it, None if none does.
    """

    name: str
    kind: str
    block: str | None
    widths: tuple[Width, ...]
    losses: tuple[float, ...]

    @model_validator(mode="after")
    def _one_loss_each(self) -> PlanGroup:
        if len(self.widths) != len(self.losses) or self.losses[0] != 0.0:
            raise ValueError(f"{self.name}: a loss for each width, and 0 for the full one")
        return self


class Context(Data):
    """One width of the residual stream: `widths` of the groups that make it, none for the unmodified one.

    `rest` is what neither a block nor a group below is charged for, `blocks` those at full width, `groups` what each
    of a group's widths adds (less than 0: saves), 0 for the full one, `bypasses` what each of a block's bypasses costs.
    """

    label: str
    widths: dict[str, int]
    loss: float
    rest: PlanCosts
    blocks: dict[str, PlanCosts]
    groups: dict[str, tuple[PlanCosts, ...]]
    bypasses: dict[str, tuple[PlanCosts, ...]] = Field(default_factory=dict)


class Tables(Data):
    """`contexts[0]` is the unmodified width. `dense_loss` is the task's, on the scoring split.

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
                raise ValueError(f"context {context.label} does not have costs for all blocks and groups")
            if any(len(context.bypasses.get(block.name, ())) != len(block.bypasses) for block in self.blocks):
                raise ValueError(f"context {context.label} does not have costs for all bypasses")
        if not self.contexts or self.contexts[0].widths:
            raise ValueError("the first context is the unmodified model")
        return self


def without_bypasses(tables: Tables) -> Tables:
    """Returns tables in which nothing can take the place of a block."""
    blocks = tuple(block.model_copy(update={"bypasses": ()}) for block in tables.blocks)
    contexts = tuple(context.model_copy(update={"bypasses": {}}) for context in tables.contexts)
    return tables.model_copy(update={"blocks": blocks, "contexts": contexts})


@dataclass(frozen=True)
class Plan:
    """A plan in terms of its tables: dropped blocks, and the place of each narrower group's width in `widths`.

    bypassed: for those of the dropped blocks that a bypass takes the place of, its place in `bypasses`.
    """

    context: int = 0
    dropped: frozenset[str] = frozenset()
    levels: Mapping[str, int] = field(default_factory=dict)
    bypassed: Mapping[str, int] = field(default_factory=dict)

    def key(self) -> tuple[object, ...]:
        maps = (tuple(sorted(one.items())) for one in (self.levels, self.bypassed))
        return self.context, tuple(sorted(self.dropped)), *maps

    def __hash__(self) -> int:
        return hash(self.key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key() == other.key()


def make_plan(tables: Tables, context: int, removed: Iterable[Removal], levels: Mapping[str, int]) -> Plan:
    """Returns a plan without what a block that goes voids."""
    gone = dict(removed)
    home = {group.name: group.block for group in tables.groups}
    left = {name: level for name, level in levels.items() if level and home[name] not in gone}
    return Plan(context, frozenset(gone), left, {name: place for name, place in gone.items() if place is not None})


def removed_by(choice: Plan) -> dict[str, int | None]:
    """Returns the blocks that go, in alphabetical order, with the place of the bypass of each."""
    return {name: choice.bypassed.get(name) for name in sorted(choice.dropped)}


def removals(tables: Tables) -> list[Removal]:
    """Returns every way in which a block can go: block by block, first with nothing in its place."""
    return [(block.name, place) for block in tables.blocks for place in (None, *range(len(block.bypasses)))]


def removal_losses(block: PlanBlock) -> list[float]:
    """Returns what every way in which the block can go adds to the loss, in the order of `removals`."""
    return [block.loss, *(bypass.loss for bypass in block.bypasses)]


def cost(tables: Tables, choice: Plan, resource: str) -> float:
    """Share of the dense model's."""
    context = tables.contexts[choice.context]
    total = context.rest[resource]
    total += sum(costs[resource] for name, costs in context.blocks.items() if name not in choice.dropped)
    total += sum(context.bypasses[name][place][resource] for name, place in choice.bypassed.items())
    return total + sum(context.groups[name][level][resource] for name, level in choice.levels.items())


def added_loss(tables: Tables, choice: Plan) -> float:
    """What the changes add to the dense model's loss, each taken alone."""
    total = tables.contexts[choice.context].loss
    for block in tables.blocks:
        if block.name in choice.bypassed:
            total += block.bypasses[choice.bypassed[block.name]].loss
        elif block.name in choice.dropped:
            total += block.loss
    return total + sum(group.losses[choice.levels.get(group.name, 0)] for group in tables.groups)


def drops_of(tables: Tables, choice: Plan) -> dict[str, Rank | None]:
    """Returns the blocks that go in the order of execution: the repair of each then aims past the one before."""
    gone = [block for block in tables.blocks if block.name in choice.dropped]
    places = choice.bypassed
    return {one.name: one.bypasses[places[one.name]].rank if one.name in places else None for one in gone}


def in_runs(drops: Drops) -> list[tuple[Rank | None, tuple[str, ...]]]:
    """Returns the blocks in runs with the same in their places: a stage for each."""
    runs = itertools.groupby(drops, key=lambda name: drops[name])
    return [(rank, tuple(names)) for rank, names in runs]


def halves(drops: Drops, order: str, is_narrower: bool) -> tuple[Drops, Drops]:
    """Returns the blocks that go before the widths are cut and those that go after: none where no width is cut."""
    number = len(drops)
    before = {"depth_then_width": number, "width_then_depth": 0, "interleaved": number // 2}[order]
    first = list(drops)[: before if is_narrower else number]
    return {name: drops[name] for name in first}, {name: rank for name, rank in drops.items() if name not in first}


def widths_of(tables: Tables, choice: Plan) -> dict[str, Width]:
    """As a recipe's channel stage takes them."""
    own = {
        group.name: group.widths[choice.levels[group.name]] for group in tables.groups if group.name in choice.levels
    }
    return {**tables.contexts[choice.context].widths, **own}
