"""Chooses how strongly a fit is damped towards the old weights, from a closed list, by the error on other data.

A fit minimises ||X W - T||^2 + sum over inputs i of ridge_i ||W_i - W_old,i||^2. A ridge that is a share of the mean
energy of all inputs is far too strong for ordinary inputs once a few have 1,000 times their scale, as in large
transformers; a share of each input's own energy does not depend on scales. The best share depends on the number of rows
and on their noise, so it is chosen by the error on data that the fit did not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

Held = Callable[[Tensor], Tensor]  # gives what a layer makes of a solution, by rounding for example

FLOOR = 1e-8  # share of the mean energy that is added, so that nearly dead inputs get no huge weights


@dataclass(frozen=True)
class Damping:
    """Says how large the ridge of an input is: a `share` of its own energy, or of the mean or largest energy of all."""

    share: float
    of: Literal["own", "mean", "largest"]

    def ridge(self, energy: Tensor) -> Tensor:
        """Returns the ridge of every input: [inputs].

        energy: [inputs], the diagonal of X^T X.
        """
        base = {
            "own": energy + FLOOR * energy.mean(),
            "mean": energy.mean().expand_as(energy),
            "largest": energy.max().expand_as(energy),
        }
        return (self.share * base[self.of]).clamp(min=1e-30)


DAMPINGS: Final = (
    Damping(1e-3, "own"),
    Damping(1e-4, "own"),
    Damping(1e-2, "own"),
    Damping(0.1, "own"),
    Damping(0.3, "own"),
    Damping(1.0, "own"),
    Damping(1e-2, "mean"),
    Damping(0.1, "mean"),
    Damping(0.1, "largest"),
)

DEFAULT: Final = DAMPINGS[0]  # where no other data decide


class Scored(Protocol):
    """Is a set of rows on which a solution has an error."""

    def error(self, solution: Tensor) -> float:
        """Returns the relative squared error of `solution` [inputs, outputs]."""
        ...


class Solvable(Scored, Protocol):
    """Is a set of rows to which a solution can be fitted."""

    def solve(self, old: Tensor, damping: Damping) -> Tensor:
        """Returns the solution [inputs, outputs], damped towards `old`."""
        ...

    def solutions(self, old: Tensor, dampings: Sequence[Damping]) -> Iterator[Tensor]:
        """Yields a solution for each damping, or the first step towards it if a solution takes several."""
        ...


@dataclass(frozen=True)
class Choice:
    """Holds a chosen solution [inputs, outputs] in float64, and relative squared errors before and after.

    damping: the damping of the solution; None where no fit helped and the solution is the old one.
    error: the errors on the rows of the fit.
    error_elsewhere: the errors on other rows; None where there are none.
    """

    solution: Tensor
    damping: Damping | None
    error: tuple[float, float]
    error_elsewhere: tuple[float, float] | None


def choose(
    problem: Solvable,
    elsewhere: Scored | None,
    old: Tensor,
    held: Held,
    dampings: Sequence[Damping] | None = None,
) -> Choice:
    """Returns the solution with the least error elsewhere, or the old one if every solution raises an error.

    elsewhere: rows that the solution is not fitted to; None where there are none.
    held: gives what the layer makes of a solution.
    dampings: the dampings to try, of which the first is taken that raises no error; None tries those that help
        elsewhere, best first.
    """

    def errors_of(solution: Tensor) -> tuple[float, ...]:
        return tuple(rows.error(solution) for rows in (problem, elsewhere) if rows is not None)

    if dampings is None:
        dampings = (DEFAULT,) if elsewhere is None else dampings_that_help(problem, elsewhere, old, held)
    chosen: tuple[Tensor, Damping | None] = (old, None)
    before = after = errors_of(old)
    for damping in dampings:
        solution = held(problem.solve(old, damping))
        errors = errors_of(solution)
        if all(error <= most for error, most in zip(errors, before, strict=True)):
            chosen, after = (solution, damping), errors
            break
    pairs = list(zip(before, after, strict=True))
    return Choice(*chosen, pairs[0], None if elsewhere is None else pairs[1])


def dampings_that_help(problem: Solvable, elsewhere: Scored, old: Tensor, held: Held) -> list[Damping]:
    """Returns the dampings whose fits to `problem` have no larger error elsewhere than `old`, best first.

    Dampings of equal error keep the order of `DAMPINGS`.
    """
    most = elsewhere.error(old)
    errors = {
        damping: elsewhere.error(held(solution))
        for damping, solution in zip(DAMPINGS, problem.solutions(old, DAMPINGS), strict=True)
    }
    return sorted((damping for damping in DAMPINGS if errors[damping] <= most), key=errors.__getitem__)


def rounded_to(dtype: torch.dtype) -> Held:
    """Returns a function that rounds a solution to a number type, as a layer does, and gives it in float64."""
    return lambda solution: solution.to(dtype).double()


def damped_solve(gram: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """Returns (gram + diag(ridge))^-1 right; zeros if the matrix is not positive definite in float64."""
    factor, fault = torch.linalg.cholesky_ex(gram + torch.diag(ridge))
    return torch.zeros_like(right) if int(fault) else torch.cholesky_solve(right, factor)
