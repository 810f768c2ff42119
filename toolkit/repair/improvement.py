"""Repeats a fit, each time damped towards the solution before, as long as the error on held-out data falls.

Targets that alternate with the fit converge slowly, so the steps are stretched: the next fit starts beyond the last
solution, and farther each time that this succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toolkit.repair.damping import Damping
from toolkit.repair.fit import Fitted, Problem, fit_site, install
from toolkit.repair.site import Site

MOST_IMPROVEMENTS = 12


@dataclass(frozen=True)
class Move:
    """Describes one fit of the sequence.

    stretch: how far beyond the last solution it starts, in lengths of the last step.
    damping: how strongly it is damped; None where the solution stays at the start.
    """

    stretch: float
    damping: Damping | None


@dataclass(frozen=True)
class Improved:
    """Holds the accepted moves, and relative squared errors before and after them.

    holdout_error: the errors on held-out data; None where there are none.
    """

    moves: tuple[Move, ...]
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None


def improve(model: nn.Module, site: Site, problem: Problem, holdout: Problem) -> Improved:
    """Fits the layer of the site repeatedly, and writes the best weights into the model.

    The weights stay as they are where no fit lowers the error.
    """
    first = best = fit_site(model, site, problem, holdout)
    stretch, step = 0.0, _weights(best)
    moves = [Move(0.0, best.damping)]
    for _ in range(MOST_IMPROVEMENTS):
        install(model, _moved(best, step, stretch))
        fitted = fit_site(model, site, problem, holdout)
        if _gains(fitted, best):
            moves.append(Move(stretch, fitted.damping))
            step = _weights(fitted) - _weights(best)
            best, stretch = fitted, max(1.0, 2 * stretch)
        elif stretch == 0.0:
            break
        else:
            stretch = 0.0
    return _ended(model, moves, first, best)


def repeat(model: nn.Module, site: Site, problem: Problem, moves: tuple[Move, ...]) -> Improved:
    """Repeats the moves on other data as long as the error falls, and writes the best weights into the model."""
    first = best = _fit(model, site, problem, moves[0])
    step = _weights(best)
    for move in moves[1:]:
        install(model, _moved(best, step, move.stretch))
        fitted = _fit(model, site, problem, move)
        if not fitted.calibration_error[1] < best.calibration_error[1]:
            break
        best, step = fitted, _weights(fitted) - _weights(best)
    return _ended(model, moves, first, best)


def _fit(model: nn.Module, site: Site, problem: Problem, move: Move) -> Fitted:
    return fit_site(model, site, problem, dampings=() if move.damping is None else (move.damping,))


def _ended(model: nn.Module, moves: list[Move] | tuple[Move, ...], first: Fitted, best: Fitted) -> Improved:
    install(model, best)
    errors = (first.calibration_error[0], best.calibration_error[1])
    elsewhere = None
    if first.holdout_error is not None and best.holdout_error is not None:
        elsewhere = (first.holdout_error[0], best.holdout_error[1])
    return Improved(tuple(moves), errors, elsewhere)


def _weights(fitted: Fitted) -> Tensor:
    assert fitted.bias is not None
    return torch.cat([fitted.weight.flatten(1), fitted.bias[:, None]], dim=1)


def _moved(fitted: Fitted, step: Tensor, stretch: float) -> Fitted:
    moved = _weights(fitted) + stretch * step
    return replace(fitted, weight=moved[:, :-1].reshape(fitted.weight.shape), bias=moved[:, -1].clone())


def _gains(fitted: Fitted, best: Fitted) -> bool:
    """Returns whether the errors on both sets of data fall."""
    pairs = [(fitted.calibration_error, best.calibration_error), (fitted.holdout_error, best.holdout_error)]
    return all(new is not None and old is not None and new[1] < old[1] for new, old in pairs)
