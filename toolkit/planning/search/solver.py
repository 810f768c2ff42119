"""The exact optimum of additive tables: one integer programme for each context, solved by HiGHS. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from toolkit.planning.tables import Plan, Tables, added_loss, cost, make_plan

PlanFamily = Literal["depth", "width", "combined"]

FAMILIES: tuple[PlanFamily, ...] = ("depth", "width", "combined")

SLACK = 1e-9  # of the dense model's cost: what rounding in the solver may take

Array = NDArray[np.float64]


def minimise_loss(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """The plan of least added loss within all limits (shares of the dense model by resource); None if there is none.

    At least one block stays. Ties go to the earlier context.
    """
    found = _over_contexts(tables, limits, family, None)
    return min(found, key=lambda choice: added_loss(tables, choice), default=None)


def minimise_cost(tables: Tables, resource: str, limits: Mapping[str, float], family: PlanFamily) -> Plan | None:
    """The plan that costs least of `resource` within the other limits: how far a family reaches."""
    others = {name: value for name, value in limits.items() if name != resource}
    found = _over_contexts(tables, others, family, resource)
    return min(found, key=lambda choice: cost(tables, choice, resource), default=None)


def _over_contexts(tables: Tables, limits: Mapping[str, float], family: PlanFamily, resource: str | None) -> list[Plan]:
    contexts = range(1 if family == "depth" else len(tables.contexts))
    solved = [_Programme(tables, index).solve(limits, family, resource) for index in contexts]
    return [choice for choice in solved if choice is not None]


class _Programme:
    """Binary variables: for each block whether it goes, then for each group which width it has.

    A group in a dropped block has none: its widths and the block's variable add up to 1, as do those of other groups.
    """

    def __init__(self, tables: Tables, context: int) -> None:
        self.tables, self.context = tables, context
        self.blocks = [block.name for block in tables.blocks]
        self.options = [(group, level) for group in tables.groups for level in range(len(group.widths))]
        self.size = len(self.blocks) + len(self.options)

    def solve(self, limits: Mapping[str, float], family: PlanFamily, resource: str | None) -> Plan | None:
        goal = self._losses() if resource is None else self._costs(resource)[0]
        if not self.size:
            return (
                Plan(self.context) if all(cost(self.tables, Plan(), name) <= limits[name] for name in limits) else None
            )
        rows = [self._one_width_each(), self._one_block_stays()]
        for name, limit in limits.items():
            changes, full = self._costs(name)
            rows.append(LinearConstraint(changes[None], -np.inf, limit + SLACK - full))
        result = milp(
            goal / max(np.abs(goal).max(), 1e-300),  # HiGHS stops at absolute gaps
            integrality=np.ones(self.size),
            bounds=Bounds(np.zeros(self.size), self._upper(family)),
            constraints=rows,
            options={"mip_rel_gap": 0.0},
        )
        return None if result.x is None else self._choice(result.x)

    def _losses(self) -> Array:
        drops = [block.loss for block in self.tables.blocks]
        return np.array([*drops, *(group.losses[level] for group, level in self.options)], dtype=np.float64)

    def _costs(self, resource: str) -> tuple[Array, float]:
        """What each variable changes, and the sum where all of them are 0."""
        context = self.tables.contexts[self.context]
        full = [context.blocks[name][resource] for name in self.blocks]
        widths = [context.groups[group.name][level][resource] for group, level in self.options]
        return np.array([*(-value for value in full), *widths]), context.rest[resource] + sum(full)

    def _one_width_each(self) -> LinearConstraint:
        matrix = np.zeros((len(self.tables.groups), self.size))
        for row, group in enumerate(self.tables.groups):
            if group.block is not None:
                matrix[row, self.blocks.index(group.block)] = 1.0
            for column, (other, _) in enumerate(self.options, len(self.blocks)):
                matrix[row, column] = float(other.name == group.name)
        return LinearConstraint(matrix, 1.0, 1.0)

    def _one_block_stays(self) -> LinearConstraint:
        row = np.zeros((1, self.size))
        row[0, : len(self.blocks)] = 1.0
        return LinearConstraint(row, 0.0, max(len(self.blocks) - 1, 0))

    def _upper(self, family: PlanFamily) -> Array:
        drops = [float(family != "width")] * len(self.blocks)
        return np.array([*drops, *(float(family != "depth" or level == 0) for _, level in self.options)])

    def _choice(self, values: Array) -> Plan:
        taken = values > 0.5
        dropped = [name for name, is_gone in zip(self.blocks, taken, strict=False) if is_gone]
        chosen = taken[len(self.blocks) :]
        levels = {group.name: level for (group, level), is_taken in zip(self.options, chosen, strict=True) if is_taken}
        return make_plan(self.tables, self.context, dropped, levels)
