"""Least squares through an activation: min_W || act(R + X W) - G ||^2, by targets that alternate with the fit.

Where the goal is what the activation lets through, the sum should equal it; where the goal is the activation's floor,
any sum below the floor will do, so the present one is kept if it is below and the floor is asked for if it is not. Each
round is an ordinary least-squares problem with the same matrix; the error of the best round is never above the first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.repair.joint import BEHIND
from toolkit.repair.least_squares import RIDGE

ROUNDS = 4


class ThroughActivation:
    """One problem; rows are streamed in and kept, in the type that they come in."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.rows: list[tuple[Tensor, Tensor, Tensor]] = []  # (X, R, G)
        self._joined: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, rows: Tensor, rest: Tensor, goal: Tensor) -> None:
        """rows [places, inputs]: X; rest [places, outputs]: the sum without the layer; goal: what should come out."""
        self.rows.append((rows, rest.to(rows.dtype), goal.to(rows.dtype)))
        self._joined = None

    def error(self, solution: Tensor) -> float:
        """Relative squared error of `solution` [inputs, outputs] behind the activation."""
        rows, rest, goal = self._all()
        missed = BEHIND[self.behind](rest + rows @ solution) - goal
        return float(missed.square().sum() / goal.square().sum().clamp(min=1e-30))

    def solve(self, old: Tensor) -> Tensor:
        """Returns the best solution that the rounds came by, `old` among them."""
        rows, rest, goal = self._all()
        gram = rows.T @ rows
        ridge = (RIDGE * gram.diagonal().mean()).clamp(min=1e-30)
        factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        best, least, found = old, self.error(old), old
        for _ in range(ROUNDS):
            total = rest + rows @ found
            wanted = torch.where(goal > 0, goal, total.clamp(max=0))
            found = found + torch.cholesky_solve(rows.T @ (wanted - total), factor)
            error = self.error(found)
            if error >= least:
                break
            best, least = found, error
        return best

    def output_moments(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [outputs] of X W."""
        outputs = self._all()[0] @ solution
        return outputs.mean(0), outputs.var(0, unbiased=False)

    def _all(self) -> tuple[Tensor, Tensor, Tensor]:
        if self._joined is None:
            rows, rest, goal = (torch.cat(parts).double() for parts in zip(*self.rows, strict=True))
            self._joined = rows, rest, goal
        return self._joined
