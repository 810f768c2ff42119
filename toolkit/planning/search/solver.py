"""The exact optimum of additive tables: one integer programme for each context, solved by HiGHS. No torch here.

A context whose lower bound is above the best plan of the others is not solved: it cannot change what is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csc_array

from toolkit.planning.search.relaxation import Relaxation
from toolkit.planning.tables import Plan, Tables, added_loss, cost, make_plan, removal_losses, removals

PlanFamily = Literal["depth", "width", "combined"]

FAMILIES: tuple[PlanFamily, ...] = ("depth", "width", "combined")

SLACK = 1e-9  # of the dense model's cost: what rounding in the solver may take

Array = NDArray[np.float64]


def minimise_loss(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """The plan of least added loss within all limits (shares of the dense model by resource); None if there is none.

    At least one block stays. Ties go to the earlier context.
    """
    return LossMinimiser(tables, limits, family).minimise(tables)


def minimise_cost(tables: Tables, resource: str, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """The plan that costs least of `resource` within the other limits: how far a family reaches."""
    others = {name: value for name, value in limits.items() if name != resource}
    programmes = _programmes(tables, others, family)
    solved = [one.solve(one.costs(resource)[0]) for one in programmes]
    found = [choice for choice in solved if choice is not None]
    return min(found, key=lambda choice: cost(tables, choice, resource), default=None)


class LossMinimiser:
    """`minimise_loss` for any number of tables that differ in losses alone: what it costs is looked up once."""

    def __init__(self, tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> None:
        self._programmes = _programmes(tables, limits, family)

    def minimise(self, tables: Tables) -> Plan | None:
        """`tables` have the costs of those that this was made of."""
        losses = _losses(tables)
        if len(self._programmes) == 1:
            return self._programmes[0].solve(losses)
        bounds = [tables.contexts[one.context].loss + one.bound(losses) for one in self._programmes]
        found: dict[int, Plan] = {}
        least = np.inf
        for index in sorted(range(len(bounds)), key=bounds.__getitem__):
            if bounds[index] > least + SLACK * (1.0 + abs(least)):
                break  # as those after it, whose bounds are higher still
            choice = self._programmes[index].solve(losses)
            if choice is not None:
                found[index] = choice
                least = min(least, added_loss(tables, choice))
        return min((found[index] for index in sorted(found)), key=lambda one: added_loss(tables, one), default=None)


def _programmes(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> list[_Programme]:
    contexts = range(1 if family == "depth" else len(tables.contexts))
    return [_Programme(tables, index, limits, family) for index in contexts]


def _losses(tables: Tables) -> Array:
    """What each variable of a programme adds to the loss."""
    widths = [loss for group in tables.groups for loss in group.losses]
    removed = [loss for block in tables.blocks for loss in removal_losses(block)]
    return np.array([*removed, *widths], dtype=np.float64)


class _Programme:
    """Binary variables: for each block in which way it goes, if it does, then for each group which width it has.

    A group in a block that goes has none: its widths and the block's variables add up to 1, as do the widths of others.
    """

    def __init__(self, tables: Tables, context: int, limits: Mapping[str, float], family: PlanFamily) -> None:
        self.tables, self.context, self.limits = tables, context, limits
        self.blocks = [block.name for block in tables.blocks]
        self.options = [(group, level) for group in tables.groups for level in range(len(group.widths))]
        self.removals = removals(tables)
        self.size = len(self.removals) + len(self.options)
        self._upper = self._most(family)
        self._changes = {name: self.costs(name) for name in limits}  # and the sum where all variables are 0

    def solve(self, goal: Array) -> Plan | None:
        """The plan whose variables have the least sum of the goal."""
        if not self.size:
            within = all(cost(self.tables, Plan(), name) <= limit for name, limit in self.limits.items())
            return Plan(self.context) if within else None
        result = milp(
            goal / max(np.abs(goal).max(), 1e-300),  # HiGHS stops at absolute gaps
            integrality=np.ones(self.size),
            bounds=Bounds(np.zeros(self.size), self._upper),
            constraints=self._rows,
            options={"mip_rel_gap": 0.0},
        )
        return None if result.x is None else self._choice(result.x)

    def bound(self, goal: Array) -> float:
        """No plan within the limits has less; `-inf` where that is not known."""
        return self._relaxation.bound(goal) if self.size else -np.inf

    def costs(self, resource: str) -> tuple[Array, float]:
        """What each variable changes, and the sum where all of them are 0."""
        context = self.tables.contexts[self.context]
        full = [context.blocks[name][resource] for name in self.blocks]
        left = [0.0 if place is None else context.bypasses[name][place][resource] for name, place in self.removals]
        gone = [context.blocks[name][resource] for name, _ in self.removals]
        widths = [context.groups[group.name][level][resource] for group, level in self.options]
        changes = [after - before for after, before in zip(left, gone, strict=True)]
        return np.array([*changes, *widths]), context.rest[resource] + sum(full)

    @cached_property
    def _relaxation(self) -> Relaxation:
        groups = self.tables.groups
        return Relaxation(
            [1 + len(block.bypasses) for block in self.tables.blocks],
            [len(group.widths) for group in groups],
            [None if group.block is None else self.blocks.index(group.block) for group in groups],
            self._upper,
            [changes for changes, _ in self._changes.values()],
            [limit - self._changes[name][1] for name, limit in self.limits.items()],
        )

    @cached_property
    def _rows(self) -> LinearConstraint:
        """One width for each group, one way at most for each block, one block at least that stays, and the limits."""
        groups, once = len(self.tables.groups), self._goes[[bool(block.bypasses) for block in self.tables.blocks]]
        gone = self._goes.sum(0, keepdims=True)
        rows = [self._one_width_each(), once, gone, *(changes[None] for changes, _ in self._changes.values())]
        limits = [limit + SLACK - self._changes[name][1] for name, limit in self.limits.items()]
        least = [*[1.0] * groups, *[0.0] * len(once), 0.0, *[-np.inf] * len(limits)]
        most = [*[1.0] * groups, *[1.0] * len(once), max(len(self.blocks) - 1, 0), *limits]
        return LinearConstraint(csc_array(np.concatenate(rows)), least, most)

    @cached_property
    def _goes(self) -> Array:
        """1 in the row of a block for each of the variables with which it goes."""
        matrix = np.zeros((len(self.blocks), self.size))
        for column, (name, _) in enumerate(self.removals):
            matrix[self.blocks.index(name), column] = 1.0
        return matrix

    def _one_width_each(self) -> Array:
        matrix = np.zeros((len(self.tables.groups), self.size))
        for row, group in enumerate(self.tables.groups):
            if group.block is not None:
                matrix[row] = self._goes[self.blocks.index(group.block)]
            for column, (other, _) in enumerate(self.options, len(self.removals)):
                matrix[row, column] = float(other.name == group.name)
        return matrix

    def _most(self, family: PlanFamily) -> Array:
        drops = [float(family != "width")] * len(self.removals)
        return np.array([*drops, *(float(family != "depth" or level == 0) for _, level in self.options)])

    def _choice(self, values: Array) -> Plan:
        taken = values > 0.5
        removed = [one for one, is_taken in zip(self.removals, taken, strict=False) if is_taken]
        chosen = taken[len(self.removals) :]
        levels = {group.name: level for (group, level), is_taken in zip(self.options, chosen, strict=True) if is_taken}
        return make_plan(self.tables, self.context, removed, levels)
