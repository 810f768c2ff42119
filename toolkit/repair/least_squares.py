"""Ridge regression on streamed rows, pulled towards the solution that is there."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-3  # of the mean diagonal of X^T X


class Normal:
    """One least-squares problem, in float64; rows are streamed in.

    They are kept as they are while there are fewer of them than unknowns, and as sums of products from then on.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor]] = []  # (X, T)
        self.gram: Tensor | None = None  # X^T X
        self.cross: Tensor | float = 0.0  # X^T T
        self.target = 0.0  # sum of T^2
        self.scale = 0.0  # sum of goal^2

    def add(self, rows: Tensor, target: Tensor, goal: Tensor) -> None:
        self.rows.append((rows.double(), target.double()))
        self.scale += float(goal.double().square().sum())
        if self.gram is not None or sum(len(part) for part, _ in self.rows) > rows.shape[1]:
            for part, wanted in self.rows:
                product = part.T @ part
                self.gram = product if self.gram is None else self.gram + product
                self.cross = self.cross + part.T @ wanted
                self.target += float(wanted.square().sum())
            self.rows = []

    def error(self, solution: Tensor) -> float:
        """Relative squared error of `solution` [inputs, outputs]."""
        if self.gram is None:
            total = sum(float((wanted - part @ solution).square().sum()) for part, wanted in self.rows)
        else:
            assert isinstance(self.cross, Tensor)
            fit = (solution * (self.gram @ solution)).sum() - 2 * (solution * self.cross).sum() + self.target
            total = max(float(fit), 0.0)
        return total / max(self.scale, 1e-30)

    def output_moments(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [outputs] of X W, where the last column of X is ones."""
        gram = self.gram if self.gram is not None else sum(part.T @ part for part, _ in self.rows)
        assert isinstance(gram, Tensor)
        count = gram[-1, -1]
        mean = gram[-1] @ solution / count
        return mean, ((solution * (gram @ solution)).sum(0) / count - mean.square()).clamp(min=0.0)

    def solve(self, old: Tensor) -> Tensor:
        """With few rows X, the same solution by way of X X^T."""
        if self.gram is None:
            part, wanted = (torch.cat(parts) for parts in zip(*self.rows, strict=True))
            ridge = RIDGE * part.square().sum() / part.shape[1]
            step: Tensor = part.T @ _solve(part @ part.T, ridge, wanted - part @ old)
            return old + step
        assert isinstance(self.cross, Tensor)
        return old + _solve(self.gram, RIDGE * self.gram.diagonal().mean(), self.cross - self.gram @ old)


def _solve(matrix: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    regular = matrix + ridge.clamp(min=1e-30) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    solution: Tensor = torch.linalg.solve(regular, right)
    return solution
