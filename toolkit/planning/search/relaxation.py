"""Bounds from below what the plans of a context add to a goal, without solving their integer programme. No torch here.

Each limit is replaced by a price for exceeding it (Lagrangian relaxation). Every block can then be minimised alone, and
for any prices no plan within the limits has less than the sum of the minima. Prices are searched for; prices that are
not the best ones make the bound lower, never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4  # limits are widened by this, so that the bound also holds for what a solver's tolerances let through

PRICES = np.geomspace(1e-3, 1e3, 12)  # tried first; then as many between the neighbours of the best one

ROUNDS = 3

Array = NDArray[np.float64]


class Relaxation:
    """Bounds a goal that is linear in the binary variables of a context's plans.

    The variables are first, for each block, the ways to drop it, and then, for each group, its widths.

    ways: the number of ways to drop each block.
    widths: the number of widths of each group.
    homes: the index of the block that holds each group; None where no block does.
    upper: the upper bound of each variable: 0 for those that must be 0, and 1 for the others.
    changes: for each limit, what each variable adds to the cost.
    left: for each limit, what all variables may add together.
    """

    def __init__(
        self,
        ways: Sequence[int],
        widths: Sequence[int],
        homes: Sequence[int | None],
        upper: Array,
        changes: Sequence[Array],
        left: Sequence[float],
    ) -> None:
        self._num_removals = sum(ways)
        self._blocks = np.cumsum([0, *ways])[:-1]
        self._starts = np.cumsum([0, *widths])[:-1]
        self._inside = np.array([[float(home == block) for block in range(len(ways))] for home in homes])
        self._outside = np.array([float(home is None) for home in homes])
        self._never = np.where(upper > 0, 0.0, np.inf)
        self._limits = [(added, most + TOLERANCE) for added, most in zip(changes, left, strict=True)]

    def bound(self, goal: Array) -> float:
        """Returns a number that no plan within the limits is below; prices are set for one limit after the other.

        goal: what each variable adds to the goal.
        """
        priced, paid = goal, 0.0
        best = float(self._least(priced[None])[0])
        for changes, left in self._limits:
            price, value = self._price(priced, changes, left)
            if value - paid > best:
                priced, paid, best = priced + price * changes, paid + price * left, value - paid
        return best

    def _price(self, goal: Array, changes: Array, left: float) -> tuple[float, float]:
        """Returns the price that gives the highest sum, and that sum; the sum rises with the price and then falls."""
        unit = max(float(np.abs(goal).max()), 1e-300) / max(float(np.abs(changes).max()), 1e-300)
        prices = unit * PRICES
        for _ in range(ROUNDS):
            sums = self._least(goal + prices[:, None] * changes) - prices * left
            best = int(sums.argmax())
            low, high = prices[max(best - 1, 0)], prices[min(best + 1, len(prices) - 1)]
            highest = float(prices[best]), float(sums[best])
            prices = np.linspace(low, high, len(PRICES))
        return highest

    def _least(self, goals: Array) -> Array:
        """Returns the least sum of each row without limits; a block is dropped, or its groups have one width each."""
        goals = goals + self._never
        removals, options = goals[:, : self._num_removals], goals[:, self._num_removals :]
        blocks = np.minimum.reduceat(removals, self._blocks, axis=1) if self._blocks.size else removals
        if not self._starts.size:
            free: Array = np.minimum(blocks, 0.0).sum(1)
            return free
        groups = np.minimum.reduceat(options, self._starts, axis=1)
        sums: Array = np.minimum(blocks, groups @ self._inside).sum(1) + groups @ self._outside
        return sums
