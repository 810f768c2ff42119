"""Solves ridge regressions on streamed rows, damped towards the old solution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from toolkit.repair.damping import DEFAULT, Damping, damped_solve


class Normal:
    """Is one least-squares problem in float64, to which rows are added.

    The rows themselves are kept while there are fewer of them than unknowns, and sums of their products from then on.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor]] = []  # (X, T)
        self.gram: Tensor | None = None  # X^T X
        self.cross: Tensor | float = 0.0  # X^T T
        self.target = 0.0  # sum of T^2
        self.scale = 0.0  # sum of goal^2

    def add(self, rows: Tensor, target: Tensor, goal: Tensor) -> None:
        """Adds rows.

        rows: [places, inputs], X.
        target: [places, outputs], what X W should be.
        goal: [places, outputs], the stream, whose energy relative errors refer to.
        """
        self.scale += float(goal.double().square().sum())
        self._take([(rows.double(), target.double())])

    def absorb(self, other: Normal) -> None:
        """Adds the rows of another problem, which must not be used any more."""
        self.scale += other.scale
        if other.gram is not None:
            self._sum_up()
            self.gram = other.gram if self.gram is None else self.gram.add_(other.gram)
            self.cross, self.target = self.cross + other.cross, self.target + other.target
        self._take(other.rows)

    def _take(self, rows: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.rows += rows
        if self.rows and (self.gram is not None or sum(len(part) for part, _ in self.rows) > self.rows[0][0].shape[1]):
            self._sum_up()

    def _sum_up(self) -> None:
        for part, wanted in self.rows:
            product = part.T @ part
            self.gram = product if self.gram is None else self.gram.add_(product)
            self.cross = self.cross + part.T @ wanted
            self.target += float(wanted.square().sum())
        self.rows = []

    def error(self, solution: Tensor) -> float:
        """Returns the relative squared error of a solution [inputs, outputs]."""
        if self.gram is None:
            total = sum(float((wanted - part @ solution).square().sum()) for part, wanted in self.rows)
        else:
            assert isinstance(self.cross, Tensor)
            fit = (solution * (self.gram @ solution - 2 * self.cross)).sum() + self.target
            total = max(float(fit), 0.0)
        return total / max(self.scale, 1e-30)

    def output_moments(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance [outputs] of X W; the last column of X must be ones."""
        gram = self.gram if self.gram is not None else sum(part.T @ part for part, _ in self.rows)
        assert isinstance(gram, Tensor)
        count = gram[-1, -1]
        mean = gram[-1] @ solution / count
        return mean, ((solution * (gram @ solution)).sum(0) / count - mean.square()).clamp(min=0.0)

    def solve(self, old: Tensor, damping: Damping = DEFAULT) -> Tensor:
        """Returns the solution [inputs, outputs], damped towards `old`."""
        return next(self.solutions(old, (damping,)))

    def solutions(self, old: Tensor, dampings: Sequence[Damping]) -> Iterator[Tensor]:
        """Yields the solution for each damping; with few rows it is computed by way of X X^T."""
        if self.gram is None:
            part, wanted = (torch.cat(parts) for parts in zip(*self.rows, strict=True))
            missing, energy = wanted - part @ old, part.square().sum(0)
            for damping in dampings:
                spread = part / damping.ridge(energy)
                ones = torch.ones(len(part), dtype=part.dtype, device=part.device)
                yield old + spread.T @ damped_solve(spread @ part.T, ones, missing)
            return
        assert isinstance(self.cross, Tensor)
        pull = self.cross - self.gram @ old
        for damping in dampings:
            yield old + damped_solve(self.gram, damping.ridge(self.gram.diagonal()), pull)
