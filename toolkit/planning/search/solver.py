"""Finds the exact optimum of additive tables: one integer programme for each context, solved by HiGHS. No torch here.

A context whose lower bound is above the best plan of the other contexts is not solved, because it cannot hold the best.
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

PlanFamily = Literal["depth", "width", "combined"]  # the axes that a plan may cut; `combined` is both

FAMILIES: tuple[PlanFamily, ...] = ("depth", "width", "combined")

SLACK = 1e-9  # limits are widened by this share of the dense model's cost, for rounding in the solver

Array = NDArray[np.float64]


def minimise_loss(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """Returns the plan of least added loss within all limits, or None if the family has no plan within them.

    At least one block stays. Of equal plans that of the earlier context is returned.

    limits: shares of the dense model's, by resource.
    """
    return LossMinimiser(tables, limits, family).minimise(tables)


def minimise_cost(tables: Tables, resource: str, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """Returns the plan that takes least of `resource` within the limits of the other resources, or None without one.

    limits: shares of the dense model's, by resource; a limit of `resource` itself is ignored.
    """
    others = {name: value for name, value in limits.items() if name != resource}
    programmes = _programmes(tables, others, family)
    solved = [programme.solve(programme.costs(resource)[0]) for programme in programmes]
    feasible = [choice for choice in solved if choice is not None]
    return min(feasible, key=lambda choice: cost(tables, choice, resource), default=None)


class LossMinimiser:
    """Does what `minimise_loss` does for many tables that differ in losses alone; costs are looked up once."""

    def __init__(self, tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> None:
        self._programmes = _programmes(tables, limits, family)

    def minimise(self, tables: Tables) -> Plan | None:
        """Returns the plan of least added loss, or None without one; `tables` must have the costs of the first ones."""
        losses = _losses(tables)
        if len(self._programmes) == 1:
            return self._programmes[0].solve(losses)
        bounds = [tables.contexts[programme.context].loss + programme.bound(losses) for programme in self._programmes]
        solved: dict[int, Plan] = {}
        least = np.inf
        for index in sorted(range(len(bounds)), key=bounds.__getitem__):
            if bounds[index] > least + SLACK * (1.0 + abs(least)):
                break  # the bounds of all contexts after it are higher still
            choice = self._programmes[index].solve(losses)
            if choice is not None:
                solved[index] = choice
                least = min(least, added_loss(tables, choice))
        plans = (solved[index] for index in sorted(solved))
        return min(plans, key=lambda plan: added_loss(tables, plan), default=None)


def _programmes(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> list[_Programme]:
    contexts = range(1 if family == "depth" else len(tables.contexts))
    return [_Programme(tables, index, limits, family) for index in contexts]


def _losses(tables: Tables) -> Array:
    """Returns what each variable of a programme adds to the loss."""
    widths = [loss for group in tables.groups for loss in group.losses]
    removed = [loss for block in tables.blocks for loss in removal_losses(block)]
    return np.array([*removed, *widths], dtype=np.float64)


class _Programme:
    """Holds the integer programme of one context.

    Its binary variables are, for each block, the ways to drop it, and then, for each group, its widths. A group inside
    a dropped block has no width: its widths and the block's variables add up to 1. The widths of a group outside all
    blocks add up to 1.
    """

    def __init__(self, tables: Tables, context: int, limits: Mapping[str, float], family: PlanFamily) -> None:
        self.tables, self.context, self.limits = tables, context, limits
        self.blocks = [block.name for block in tables.blocks]
        self.options = [(group, level) for group in tables.groups for level in range(len(group.widths))]
        self.removals = removals(tables)
        self.size = len(self.removals) + len(self.options)
        self._upper = self._most(family)
        self._changes = {name: self.costs(name) for name in limits}

    def solve(self, goal: Array) -> Plan | None:
        """Returns the plan of least `goal`, summed over its variables, or None if no plan is within the limits."""
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
        """Returns a number that no plan within the limits is below; `-inf` for tables without blocks and groups."""
        return self._relaxation.bound(goal) if self.size else -np.inf

    def costs(self, resource: str) -> tuple[Array, float]:
        """Returns what each variable adds to the cost, and the cost where all variables are 0."""
        context = self.tables.contexts[self.context]
        full = [context.blocks[name][resource] for name in self.blocks]
        after = [0.0 if index is None else context.bypasses[name][index][resource] for name, index in self.removals]
        before = [context.blocks[name][resource] for name, _ in self.removals]
        widths = [context.groups[group.name][level][resource] for group, level in self.options]
        changes = [new - old for new, old in zip(after, before, strict=True)]
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
        """Returns the constraints.

        Each group has one width, each block is dropped in at most one way, at least one block stays, and the costs are
        within the limits.
        """
        groups, once = len(self.tables.groups), self._drops[[bool(block.bypasses) for block in self.tables.blocks]]
        num_drops = self._drops.sum(0, keepdims=True)
        rows = [self._one_width_each(), once, num_drops, *(changes[None] for changes, _ in self._changes.values())]
        limits = [limit + SLACK - self._changes[name][1] for name, limit in self.limits.items()]
        least = [*[1.0] * groups, *[0.0] * len(once), 0.0, *[-np.inf] * len(limits)]
        most = [*[1.0] * groups, *[1.0] * len(once), max(len(self.blocks) - 1, 0), *limits]
        return LinearConstraint(csc_array(np.concatenate(rows)), least, most)

    @cached_property
    def _drops(self) -> Array:
        """Returns a matrix with a row per block, which has 1 for each variable that drops the block."""
        matrix = np.zeros((len(self.blocks), self.size))
        for column, (name, _) in enumerate(self.removals):
            matrix[self.blocks.index(name), column] = 1.0
        return matrix

    def _one_width_each(self) -> Array:
        matrix = np.zeros((len(self.tables.groups), self.size))
        for row, group in enumerate(self.tables.groups):
            if group.block is not None:
                matrix[row] = self._drops[self.blocks.index(group.block)]
            for column, (other, _) in enumerate(self.options, len(self.removals)):
                matrix[row, column] = float(other.name == group.name)
        return matrix

    def _most(self, family: PlanFamily) -> Array:
        drops = [float(family != "width")] * len(self.removals)
        return np.array([*drops, *(float(family != "depth" or level == 0) for _, level in self.options)])

    def _choice(self, values: Array) -> Plan:
        taken = values > 0.5
        removed = [removal for removal, is_taken in zip(self.removals, taken, strict=False) if is_taken]
        chosen = taken[len(self.removals) :]
        levels = {group.name: level for (group, level), is_taken in zip(self.options, chosen, strict=True) if is_taken}
        return make_plan(self.tables, self.context, removed, levels)
