"""Solves least squares through an activation, min_W || act(R + X W) - G ||^2, by alternating targets and fits.

For a positive goal, the target of the sum is the goal. For a goal of 0, any sum below 0 will do: the target is the
present sum if that is negative, and 0 otherwise. Each round is an ordinary least-squares problem with the same matrix;
the best round is taken, so the error never rises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from toolkit.repair.damping import DEFAULT, Damping, damped_solve
from toolkit.repair.joint import BEHIND

ROUNDS = 4
MOST_BYTES = 2**27  # bytes of X that are kept; if there are more, every second row is dropped
CHUNK = 4096  # rows that are computed with in float64 at a time

Rows = tuple[Tensor, Tensor, Tensor]  # X, R, G


class ThroughActivation:
    """Is one problem to which rows are added; they are kept in their own number type, and thinned out if many.

    behind: the activation, one of `toolkit.repair.joint.BEHIND`.
    """

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.rows: list[Rows] = []
        self.stride = 1
        self._gram: Tensor | None = None  # X^T X, computed when it is first needed

    def add(self, rows: Tensor, rest: Tensor, goal: Tensor) -> None:
        """Adds rows.

        rows: [places, inputs], X.
        rest: [places, outputs], R, the sum without the layer.
        goal: [places, outputs], G, the stream that should be behind the activation.
        """
        kind = torch.promote_types(rows.dtype, torch.float32)
        self.rows.append(_thinned((rows, rest.to(kind), goal.to(kind)), self.stride))
        self._thin_out()

    def absorb(self, other: ThroughActivation) -> None:
        """Adds the rows of another problem, which must not be used any more."""
        self.rows += other.rows
        self._thin_out()

    def _thin_out(self) -> None:
        self._gram = None
        while sum(part.nbytes for part, _, _ in self.rows) > MOST_BYTES:
            self.stride *= 2
            self.rows = [_thinned(part, 2) for part in self.rows]

    def error(self, solution: Tensor) -> float:
        """Returns the relative squared error of a solution [inputs, outputs] behind the activation."""
        missed = scale = 0.0
        for rows, rest, goal in self._chunks():
            missed += self._missed(rest + rows @ solution, goal)
            scale += float(goal.square().sum())
        return missed / max(scale, 1e-30)

    def _missed(self, total: Tensor, goal: Tensor) -> float:
        return float((BEHIND[self.behind](total) - goal).square().sum())

    def solve(self, old: Tensor, damping: Damping = DEFAULT) -> Tensor:
        """Returns the best solution [inputs, outputs] of all rounds, of which `old` is the first."""
        gram = self._products(old)
        factor, fault = torch.linalg.cholesky_ex(gram + torch.diag(damping.ridge(gram.diagonal())))
        if int(fault):
            return old
        best = old
        least, pull = self._error_and_pull(old)
        for _ in range(ROUNDS):
            solution = best + torch.cholesky_solve(pull, factor)
            error, pull = self._error_and_pull(solution)
            if not error < least:
                break
            best, least = solution, error
        return best

    def solutions(self, old: Tensor, dampings: Sequence[Damping]) -> Iterator[Tensor]:
        """Yields the solution of the first round for each damping; its targets are the same for all."""
        gram, (_, pull) = self._products(old), self._error_and_pull(old)
        for damping in dampings:
            yield old + damped_solve(gram, damping.ridge(gram.diagonal()), pull)

    def _products(self, old: Tensor) -> Tensor:
        """Returns X^T X."""
        if self._gram is None:
            self._gram = torch.zeros(len(old), len(old), dtype=old.dtype, device=old.device)
            for rows, _, _ in self._chunks():
                self._gram += rows.T @ rows
        return self._gram

    def output_moments(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and variance [outputs] of X W."""
        count, total, squares = 0, torch.zeros_like(solution[0]), torch.zeros_like(solution[0])
        for rows, _, _ in self._chunks():
            outputs = rows @ solution
            count, total, squares = count + len(rows), total + outputs.sum(0), squares + outputs.square().sum(0)
        mean = total / count
        return mean, (squares / count - mean.square()).clamp(min=0.0)

    def _error_and_pull(self, solution: Tensor) -> tuple[float, Tensor]:
        """Returns the relative squared error, and X^T (T - R - X W) for the targets T of this round."""
        missed, scale, pull = 0.0, 0.0, torch.zeros_like(solution)
        for rows, rest, goal in self._chunks():
            total = rest + rows @ solution
            missed += self._missed(total, goal)
            scale += float(goal.square().sum())
            pull += rows.T @ (torch.where(goal > 0, goal, total.clamp(max=0)) - total)
        return missed / max(scale, 1e-30), pull

    def _chunks(self) -> Iterator[Rows]:
        """Yields the rows in float64, CHUNK at a time."""
        for rows, rest, goal in self.rows:
            for first in range(0, len(rows), CHUNK):
                part = slice(first, first + CHUNK)
                yield rows[part].double(), rest[part].double(), goal[part].double()


def _thinned(rows: Rows, stride: int) -> Rows:
    if stride == 1:
        return rows
    first, second, third = (part[::stride].clone() for part in rows)
    return first, second, third
