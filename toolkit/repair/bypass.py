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
from toolkit.hooks.copies import copy_model
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.fit import APART, Problem, problem_of
from toolkit.repair.improvement import improve, repeat
from toolkit.repair.joint import Joint
from toolkit.repair.layers import rows_of, solution_of
from toolkit.repair.site import Site
from toolkit.repair.through import ThroughActivation
from toolkit.stand_ins.linear_bypass import LinearBypass, LinearBypassArguments
from toolkit.stand_ins.registry import make_stand_in

Streams = Sequence[tuple[Tensor, Tensor]]


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

    @property
    def is_worthwhile(self) -> bool:
        """Whether the bypass does something, and does it on held-out data too."""
        pairs = [self.calibration_error, self.holdout_error or (1.0, 1.0)]
        return pairs[0][1] < pairs[0][0] and not pairs[1][1] > pairs[1][0]


@dataclass
class _Seen:
    """What one set of data says of a site: the problem of the last layer, and sums over the stream's rows."""

    problem: Problem
    products: Tensor | float | None = None  # of the rows of x with a one at their end; None where nobody asks for it

    def add(self, bypass: LinearBypass, stream: Tensor, goal: Tensor, apart: _Seen | None = None) -> None:
        """One batch more. apart: its problem takes the last eighth of the rows, where it is given."""
        entry = bypass.entry(stream)
        rows = rows_of(bypass.last_layer, entry, stream.shape)
        parts = rows.inputs, rows.pick(stream), rows.pick(goal)
        first = len(parts[0]) if apart is None else len(parts[0]) - len(parts[0]) // APART
        self._take(*(part[:first] for part in parts))
        if apart is not None and first < len(parts[0]):
            apart._take(*(part[first:] for part in parts))
        if self.products is not None:
            exact = rows.inputs.double()
            self.products = self.products + exact.T @ exact

    def _take(self, inputs: Tensor, rest: Tensor, wanted: Tensor) -> None:
        if isinstance(self.problem, ThroughActivation):
            self.problem.add(inputs, rest, wanted)
        else:
            self.problem.add(inputs, wanted - rest, wanted)


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
    """Writes the solution into the bypass; it is as it was where nothing is gained."""
    found = improve(bypass, _last(site, bypass), calibration.problem, holdout.problem)
    return FittedBypass(site, bypass, found.calibration_error, found.holdout_error)


@torch.no_grad()
def fit_with_rows_apart(model: nn.Module, site: BypassSite, streams: Streams) -> FittedBypass:
    """Fits one bypass where no data are held out: what an eighth of the rows, put apart, accepts of fits to the others
    is done again on all of them. The held-out errors are those of the eighth.

    streams: by batch, the stream before the place of the block and what the stream behind it should become.
    """
    full = replace(site, arguments=_of_rank(site, None))
    wide, seen = _fit_apart(_new(model, full), site, streams)
    if site.arguments.rank is None:
        return wide
    written, _ = _fit_apart(_cut(model, site, wide, seen), site, streams)
    return _never_worse(written, wide)


def _fit_apart(bypass: LinearBypass, site: BypassSite, streams: Streams) -> tuple[FittedBypass, _Seen]:
    last = _last(site, bypass)
    seen, apart = _Seen(problem_of(last)), _Seen(problem_of(last))
    seen.products = 0.0 if bypass.arguments.rank != site.arguments.rank else None
    for stream, goal in streams:
        seen.add(bypass, stream, goal, apart)
    trial = improve(copy_model(bypass), last, seen.problem, apart.problem)
    seen.problem.absorb(apart.problem)  # type: ignore[arg-type]  # both are of the site's kind
    found = repeat(bypass, last, seen.problem, trial.moves)
    return FittedBypass(site, bypass, found.calibration_error, trial.holdout_error), seen


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
