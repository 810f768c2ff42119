"""How strongly a fit is pulled towards the weights that are there: a closed list, and which of it helps elsewhere.

A fit minimises ||X W - T||^2 + sum over inputs i of ridge_i ||W_i - W_old,i||^2. A ridge that is a share of the mean
energy of all inputs is far too strong for ordinary inputs once a few have 1,000 times their scale, as in large
transformers; a share of every input's own energy does not see the scale of inputs. Which share is best depends on how
many rows there are and how noisy they are, so data that the fit did not see decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

Held = Callable[[Tensor], Tensor]  # what becomes of a solution once a layer has taken it, by rounding for one

FLOOR = 1e-8  # of the mean energy: inputs that are all but dead are not given weights without bound


@dataclass(frozen=True)
class Damping:
    """The ridge of an input is `share` of its own energy, or of the mean or the largest energy of all inputs."""

    share: float
    of: Literal["own", "mean", "largest"]

    def ridge(self, energy: Tensor) -> Tensor:
        """Returns the ridge of every input. energy [inputs]: the diagonal of X^T X."""
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

DEFAULT: Final = DAMPINGS[0]  # where nothing decides


class Scored(Protocol):
    """Rows that a solution can be tried on."""

    def error(self, solution: Tensor) -> float:
        """Returns the relative squared error of `solution` [inputs, outputs]."""
        ...


class Solvable(Scored, Protocol):
    """Rows that a solution can be fitted to."""

    def solve(self, old: Tensor, damping: Damping) -> Tensor:
        """Returns the solution [inputs, outputs], pulled towards `old`."""
        ...

    def solutions(self, old: Tensor, dampings: Sequence[Damping]) -> Iterator[Tensor]:
        """Yields a solution for every damping, or the first step towards it where a solution takes several."""
        ...


@dataclass(frozen=True)
class Choice:
    """A solution [inputs, outputs] in float64, and errors before and after: on the rows of the fit, and elsewhere.

    damping: None where no fit helped, so that the solution is the old one.
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
    """Returns the solution, as it is held, with the least error elsewhere; never one that lifts either error.

    dampings: those to try, the first that lifts no error is taken; found by the error elsewhere where not given.
    """

    def errors_of(solution: Tensor) -> tuple[float, ...]:
        return tuple(rows.error(solution) for rows in (problem, elsewhere) if rows is not None)

    if dampings is None:
        dampings = (DEFAULT,) if elsewhere is None else dampings_that_help(problem, elsewhere, old, held)
    found: tuple[Tensor, Damping | None] = (old, None)
    before = after = errors_of(old)
    for damping in dampings:
        solution = held(problem.solve(old, damping))
        errors = errors_of(solution)
        if all(error <= most for error, most in zip(errors, before, strict=True)):
            found, after = (solution, damping), errors
            break
    pairs = list(zip(before, after, strict=True))
    return Choice(*found, pairs[0], None if elsewhere is None else pairs[1])


def dampings_that_help(problem: Solvable, elsewhere: Scored, old: Tensor, held: Held) -> list[Damping]:
    """Returns the dampings with which a fit to `problem`, as it is held, has no larger error than `old` elsewhere.

    The best comes first; the order of the list decides between equals.
    """
    most = elsewhere.error(old)
    errors = {
        damping: elsewhere.error(held(solution))
        for damping, solution in zip(DAMPINGS, problem.solutions(old, DAMPINGS), strict=True)
    }
    return sorted((damping for damping in DAMPINGS if errors[damping] <= most), key=errors.__getitem__)


def rounded_to(dtype: torch.dtype) -> Held:
    """Returns what a layer of that type makes of a solution, in float64."""
    return lambda solution: solution.to(dtype).double()


def damped_solve(gram: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    """Returns (gram + diag(ridge))^-1 right; zeros where the sum is not positive definite in float64."""
    factor, fault = torch.linalg.cholesky_ex(gram + torch.diag(ridge))
    return torch.zeros_like(right) if int(fault) else torch.cholesky_solve(right, factor)
