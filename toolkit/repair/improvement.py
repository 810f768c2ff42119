"""A fit that is made again and again, each time pulled towards the one before, as long as held-out data gain by it.

Targets that alternate with the fit come slowly to an end, so every improvement is stretched: the next one begins beyond
the last by as much as went well so far.
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
    """One fit: how far beyond the one before it begins, and how strongly it is damped (None: it stays there)."""

    stretch: float
    damping: Damping | None


@dataclass(frozen=True)
class Improved:
    """Relative squared errors before and after all moves, on the data of the fit and on held-out data, if there are."""

    moves: tuple[Move, ...]
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None


def improve(model: nn.Module, site: Site, problem: Problem, holdout: Problem) -> Improved:
    """Fits the layer of the site and writes it into the model; it is as it was where nothing is gained."""
    first = best = fit_site(model, site, problem, holdout)
    stretch, step = 0.0, _weights(best)
    moves = [Move(0.0, best.damping)]
    for _ in range(MOST_IMPROVEMENTS):
        install(model, _moved(best, step, stretch))
        better = fit_site(model, site, problem, holdout)
        if _gains(better, best):
            moves.append(Move(stretch, better.damping))
            step = _weights(better) - _weights(best)
            best, stretch = better, max(1.0, 2 * stretch)
        elif stretch == 0.0:
            break
        else:
            stretch = 0.0
    return _ended(model, moves, first, best)


def repeat(model: nn.Module, site: Site, problem: Problem, moves: tuple[Move, ...]) -> Improved:
    """Makes the moves again on other data, as long as the error falls, and writes the end into the model."""
    first = best = _fit(model, site, problem, moves[0])
    step = _weights(best)
    for move in moves[1:]:
        install(model, _moved(best, step, move.stretch))
        better = _fit(model, site, problem, move)
        if not better.calibration_error[1] < best.calibration_error[1]:
            break
        best, step = better, _weights(better) - _weights(best)
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


def _gains(better: Fitted, best: Fitted) -> bool:
    """Whether both errors fall."""
    pairs = [(better.calibration_error, best.calibration_error), (better.holdout_error, best.holdout_error)]
    return all(new is not None and old is not None and new[1] < old[1] for new, old in pairs)
