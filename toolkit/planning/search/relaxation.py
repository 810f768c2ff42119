"""A lower bound of what a context's plans add to a goal, without solving their integer programme. No torch here.

Limits are given a price each instead of being held (Lagrangian relaxation): then every block is free to take what is
best for itself, and whatever the prices are, no plan within the limits has less than the sum. Good prices are searched
for; that they are not the best ones only makes the bound lower.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4  # that limits are wider by here, so that bounds hold for all that a solver's tolerances let through

PRICES = np.geomspace(1e-3, 1e3, 12)  # tried at once; then as many between the neighbours of the best one

ROUNDS = 3

Array = NDArray[np.float64]


class Relaxation:
    """Variables are those of blocks (that one goes in one of its ways), then those of groups (one of its widths).

    `ways`: in how many each block can go; `widths`: how many each group has; `homes`: the place of its block, None if
    none holds it; `upper`: 0 for variables that must be 0. For each limit `changes` has what each variable adds to the
    cost, `left` what all may add together.
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
        self._limits = [(one, most + TOLERANCE) for one, most in zip(changes, left, strict=True)]

    def bound(self, goal: Array) -> float:
        """No plan within the limits adds less to the goal. One limit after the other gets its price."""
        priced, paid = goal, 0.0
        best = float(self._least(priced[None])[0])
        for changes, left in self._limits:
            price, value = self._price(priced, changes, left)
            if value - paid > best:
                priced, paid, best = priced + price * changes, paid + price * left, value - paid
        return best

    def _price(self, goal: Array, changes: Array, left: float) -> tuple[float, float]:
        """The price that was found to give the highest sum, and that sum: it rises with the price, then falls."""
        unit = max(float(np.abs(goal).max()), 1e-300) / max(float(np.abs(changes).max()), 1e-300)
        prices = unit * PRICES
        for _ in range(ROUNDS):
            sums = self._least(goal + prices[:, None] * changes) - prices * left
            best = int(sums.argmax())
            low, high = prices[max(best - 1, 0)], prices[min(best + 1, len(prices) - 1)]
            found = float(prices[best]), float(sums[best])
            prices = np.linspace(low, high, len(PRICES))
        return found

    def _least(self, goals: Array) -> Array:
        """The least sum of each row where nothing is limited: every block goes, or every group in it has a width."""
        goals = goals + self._never
        removals, options = goals[:, : self._num_removals], goals[:, self._num_removals :]
        blocks = np.minimum.reduceat(removals, self._blocks, axis=1) if self._blocks.size else removals
        if not self._starts.size:
            free: Array = np.minimum(blocks, 0.0).sum(1)
            return free
        groups = np.minimum.reduceat(options, self._starts, axis=1)
        sums: Array = np.minimum(blocks, groups @ self._inside).sum(1) + groups @ self._outside
        return sums
