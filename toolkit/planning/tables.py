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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import model_validator

from toolkit.base.settings import Data
from toolkit.measure.results import MeasurementKey
from toolkit.stages.channel_prune.settings import Heads

PlanCosts = dict[str, float]

Width = int | Heads

MACS, PARAMS = "macs", "params"


def latency_of(key: MeasurementKey) -> str:
    """Returns the resource's name."""
    return f"latency@{key.text}"


class PlanBlock(Data):
    """A residual block that can be dropped; `loss` is what that adds to the task's loss, after its repair."""

    name: str
    loss: float


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
    of a group's widths adds (less than 0: saves), 0 for the full one.
    """

    label: str
    widths: dict[str, int]
    loss: float
    rest: PlanCosts
    blocks: dict[str, PlanCosts]
    groups: dict[str, tuple[PlanCosts, ...]]


class Tables(Data):
    """`contexts[0]` is the unmodified width. `dense_loss` is the task's, on the scoring split.

    `counts_add_up`: sums of multiply-adds and parameters are exact; not so where groups share a layer.
    """

    dense_loss: float
    blocks: tuple[PlanBlock, ...]
    groups: tuple[PlanGroup, ...]
    contexts: tuple[Context, ...]
    counts_add_up: bool = True

    @model_validator(mode="after")
    def _complete(self) -> Tables:
        names = {block.name for block in self.blocks}
        for context in self.contexts:
            if set(context.blocks) != names or set(context.groups) != {group.name for group in self.groups}:
                raise ValueError(f"context {context.label} does not have costs for all blocks and groups")
        if not self.contexts or self.contexts[0].widths:
            raise ValueError("the first context is the unmodified model")
        return self


@dataclass(frozen=True)
class Plan:
    """A plan in terms of its tables: dropped blocks, and the place of each narrower group's width in `widths`."""

    context: int = 0
    dropped: frozenset[str] = frozenset()
    levels: Mapping[str, int] = field(default_factory=dict)

    def key(self) -> tuple[object, ...]:
        return self.context, tuple(sorted(self.dropped)), tuple(sorted(self.levels.items()))

    def __hash__(self) -> int:
        return hash(self.key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.key() == other.key()


def make_plan(tables: Tables, context: int, dropped: Iterable[str], levels: Mapping[str, int]) -> Plan:
    """Without what a dropped block voids."""
    gone = frozenset(dropped)
    home = {group.name: group.block for group in tables.groups}
    return Plan(context, gone, {name: level for name, level in levels.items() if level and home[name] not in gone})


def cost(tables: Tables, choice: Plan, resource: str) -> float:
    """Share of the dense model's."""
    context = tables.contexts[choice.context]
    total = context.rest[resource]
    total += sum(costs[resource] for name, costs in context.blocks.items() if name not in choice.dropped)
    return total + sum(context.groups[name][level][resource] for name, level in choice.levels.items())


def added_loss(tables: Tables, choice: Plan) -> float:
    """What the changes add to the dense model's loss, each taken alone."""
    total = tables.contexts[choice.context].loss
    total += sum(block.loss for block in tables.blocks if block.name in choice.dropped)
    return total + sum(group.losses[choice.levels.get(group.name, 0)] for group in tables.groups)


def dropped_in_order(tables: Tables, choice: Plan) -> list[str]:
    """In the order of execution: the repair of each dropped block then aims past the one before."""
    return [block.name for block in tables.blocks if block.name in choice.dropped]


def drops_before(order: str, number: int) -> int:
    """How many of so many blocks are dropped before the widths are cut."""
    return {"depth_then_width": number, "width_then_depth": 0, "interleaved": number // 2}[order]


def widths_of(tables: Tables, choice: Plan) -> dict[str, Width]:
    """As a recipe's channel stage takes them."""
    own = {
        group.name: group.widths[choice.levels[group.name]] for group in tables.groups if group.name in choice.levels
    }
    return {**tables.contexts[choice.context].widths, **own}
