"""Closed-form repair by a stand-in: a linear map of the stream in the place of a block that goes.

    min_{D, c}  || act(x + D x + c) - y ||^2

x is the stream of the compressed model where the block was, y the reference's stream behind the block, or behind the
last of the blocks after it that are gone too. The pull is towards the identity (D = 0, c = 0), so that the fitted error
is never above that of dropping the block. The solution is improved, each time with the pull towards the one before,
as long as the error on held-out data falls.

Of rank r: D is cut to its best approximation in the metric of the data, D P P^T for the r leading eigenvectors P of
D^T G D, with G the centred products of x (reduced-rank regression, Izenman 1975); then the layer that writes the stream
is fitted again on what is left of its inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.fit import Fitted, Problem, fit_site, install, problem_of
from toolkit.repair.joint import Joint
from toolkit.repair.layers import rows_of, solution_of
from toolkit.repair.site import Site
from toolkit.repair.through import ThroughActivation
from toolkit.stand_ins.linear_bypass import LinearBypass, LinearBypassArguments
from toolkit.stand_ins.registry import make_stand_in

MOST_IMPROVEMENTS = 12


@dataclass(frozen=True)
class BypassSite:
    """A bypass to fit: `arguments` for the place of `block`, and what its output should be in the reference model."""

    block: str
    goal: ActivationPoint
    arguments: LinearBypassArguments


@dataclass(frozen=True)
class FittedBypass:
    """A bypass with its weights, in no model yet, and relative squared errors of the stream behind it.

    The errors are before, with the identity in the block's place, and after; held out where it was asked for.
    """

    site: BypassSite
    module: LinearBypass
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None


@dataclass
class _Seen:
    """What one set of data says of a site: the problem of the last layer, and sums over the stream's rows."""

    problem: Problem
    products: Tensor | float | None = None  # of the rows of x with a one at their end; None where nobody asks for it

    def add(self, bypass: LinearBypass, stream: Tensor, goal: Tensor) -> None:
        entry = bypass.entry(stream)
        rows = rows_of(bypass.last_layer, entry, stream.shape)
        rest, wanted = rows.pick(stream), rows.pick(goal)
        if isinstance(self.problem, ThroughActivation):
            self.problem.add(rows.inputs, rest, wanted)
        else:
            self.problem.add(rows.inputs, wanted - rest, wanted)
        if self.products is not None:
            exact = rows.inputs.double()
            self.products = self.products + exact.T @ exact


def fit_bypasses(
    model: nn.Module,
    reference: nn.Module,
    sites: Sequence[BypassSite],
    calibration: Iterable[Inputs],
    holdout: Iterable[Inputs],
) -> list[FittedBypass]:
    """Fit a bypass for every site on its own, each as if the other blocks stayed. Neither model is changed.

    Raises:
        StageError: the streams are not finite numbers, or not of one shape.
    """
    calibration, holdout = list(calibration), list(holdout)
    together = [site for site in sites if site.arguments.behind == "nothing"]
    groups = [*([together] if together else []), *([site] for site in sites if site not in together)]
    found: dict[BypassSite, FittedBypass] = {}
    for group in groups:  # rows are kept where they have to be seen through an activation
        full = {site: replace(site, arguments=_of_rank(site, None)) for site in group}
        new = {site: _new(model, full[site]) for site in group}
        seen = [_gather(model, reference, new, data) for data in (calibration, holdout)]
        fitted = {site: _fit(new[site], site, *(one[site] for one in seen)) for site in group}
        found |= {site: one for site, one in fitted.items() if site.arguments.rank is None}
        cut = {site: _cut(model, site, one, seen[0][site]) for site, one in fitted.items() if site not in found}
        if cut:
            again = [_gather(model, reference, cut, data) for data in (calibration, holdout)]
            for site, bypass in cut.items():
                written = _fit(bypass, site, *(one[site] for one in again))
                found[site] = _never_worse(written, fitted[site])
    return [found[site] for site in sites]


def _of_rank(site: BypassSite, rank: int | None) -> LinearBypassArguments:
    return site.arguments.model_copy(update={"rank": rank})


def _new(model: nn.Module, site: BypassSite) -> LinearBypass:
    made = make_stand_in(model.get_submodule(site.block), site.arguments)
    assert isinstance(made, LinearBypass)
    return made


@torch.no_grad()
def _gather(
    model: nn.Module, reference: nn.Module, bypasses: Mapping[BypassSite, LinearBypass], batches: Iterable[Inputs]
) -> dict[BypassSite, _Seen]:
    """One pass of both models over the data for all sites at once."""
    found = {site: _Seen(problem_of(_last(site, bypass))) for site, bypass in bypasses.items()}
    for site, bypass in bypasses.items():
        found[site].products = 0.0 if bypass.arguments.rank != site.arguments.rank else None  # the rank is to be cut
    entries = {site: ActivationPoint(site.block, "input") for site in bypasses}
    for inputs in batches:
        streams = capture(model, inputs, set(entries.values()))
        goals = capture(reference, inputs, {site.goal for site in bypasses})
        for site, seen in found.items():
            stream, goal = streams[entries[site]], goals[site.goal]
            if stream.shape != goal.shape:
                raise StageError(
                    f"no bypass for {site.block}: the stream before it is {tuple(stream.shape)}, "
                    f"and what it should become is {tuple(goal.shape)}"
                )
            seen.add(bypasses[site], stream, goal)
    return found


def _last(site: BypassSite, bypass: LinearBypass) -> Site:
    """The last layer of the bypass, as a layer of the bypass alone that joins the stream behind it."""
    point = ActivationPoint(site.block, "output")
    return Site(bypass.last, point, site.goal, joint=Joint(behind=site.arguments.behind))


def _fit(bypass: LinearBypass, site: BypassSite, calibration: _Seen, holdout: _Seen) -> FittedBypass:
    """Write the solution into the bypass; it is as it was where nothing is gained.

    Targets that alternate with the fit come slowly to an end, so every improvement is stretched: the next one begins
    beyond the last by as much as went well so far.
    """
    last = _last(site, bypass)
    first = best = fit_site(bypass, last, calibration.problem, holdout.problem)
    stretch, step = 0.0, _weights(best)
    install(bypass, best)
    for _ in range(MOST_IMPROVEMENTS):
        install(bypass, _moved(best, step, stretch))
        better = fit_site(bypass, last, calibration.problem, holdout.problem)
        if _gains(better, best):
            step = _weights(better) - _weights(best)
            best, stretch = better, max(1.0, 2 * stretch)
        elif stretch == 0.0:
            break
        else:
            stretch = 0.0
    install(bypass, best)
    errors = (first.calibration_error[0], best.calibration_error[1])
    elsewhere = None
    if first.holdout_error is not None and best.holdout_error is not None:
        elsewhere = (first.holdout_error[0], best.holdout_error[1])
    return FittedBypass(site, bypass, errors, elsewhere)


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


@torch.no_grad()
def _cut(model: nn.Module, site: BypassSite, full: FittedBypass, seen: _Seen) -> LinearBypass:
    """A bypass of the site's rank that computes nearly what the full one does."""
    rank = site.arguments.rank
    assert rank is not None and isinstance(seen.products, Tensor)
    solution = solution_of(full.module.last_layer)  # [channels + 1, channels]
    correction, offset = solution[:-1], solution[-1]
    count, mean = seen.products[-1, -1], seen.products[-1, :-1] / seen.products[-1, -1]
    centred = seen.products[:-1, :-1] - count * torch.outer(mean, mean)
    spread = correction.T @ (centred @ correction)
    leading = torch.linalg.eigh((spread + spread.T) / 2).eigenvectors[:, -rank:]  # [channels, rank]
    cut = _new(model, site)
    read = correction @ leading  # [channels, rank]
    lost = mean @ (correction - read @ leading.T)
    for layer, weights in ((cut.down, read.T), (cut.up, leading)):
        weight = layer.get_parameter("weight")
        weight.copy_(weights.reshape(weight.shape))
    cut.up.get_parameter("bias").copy_(offset + lost)
    return cut


@torch.no_grad()
def _never_worse(fitted: FittedBypass, full: FittedBypass) -> FittedBypass:
    """The errors before are those of the identity; where the bypass has a larger one, it becomes the identity."""
    before = full.calibration_error[0]
    elsewhere = None if full.holdout_error is None else full.holdout_error[0]
    after, held_out = fitted.calibration_error[1], fitted.holdout_error
    if not after <= before:
        for parameter in fitted.module.parameters():
            parameter.zero_()
        after, held_out = before, None if elsewhere is None else (elsewhere, elsewhere)
    if elsewhere is not None and held_out is not None:
        held_out = (elsewhere, held_out[1])
    return replace(fitted, calibration_error=(before, after), holdout_error=held_out)
