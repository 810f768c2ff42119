"""Repairs a dropped block in closed form by a bypass: a linear map of the stream in the block's place.

    min_{D, c}  || act(x + D x + c) - y ||^2

x: the stream of the compressed model where the block was.
y: the reference's stream behind the block, or behind the last of the following blocks that are dropped too.
The fit is damped towards the identity (D = 0, c = 0), so that its error is never above that of dropping the block. It
is repeated, each time damped towards the solution before, as long as the error on held-out data falls.

For rank r, D is replaced by its best approximation on the data, D P P^T with the r leading eigenvectors P of D^T G D,
where G are the centred products of x (reduced-rank regression, Izenman 1975). Then the layer that writes the stream is
fitted again on its reduced inputs.
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
    """Describes a bypass to fit.

    block: the name of the block that the bypass replaces.
    goal: where in the reference model the stream is that the bypass should give.
    arguments: what the bypass is made from.
    """

    block: str
    goal: ActivationPoint
    arguments: LinearBypassArguments


@dataclass(frozen=True)
class FittedBypass:
    """Holds a fitted bypass, which is in no model yet, and relative squared errors of the stream behind it.

    Each pair of errors is that with the identity in the block's place, and that with the bypass.

    holdout_error: the errors on data that the bypass was not fitted to; None where there were none.
    """

    site: BypassSite
    module: LinearBypass
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None

    @property
    def is_worthwhile(self) -> bool:
        """Returns whether the bypass lowers the error, and does not raise it on held-out data."""
        pairs = [self.calibration_error, self.holdout_error or (1.0, 1.0)]
        return pairs[0][1] < pairs[0][0] and not pairs[1][1] > pairs[1][0]


@dataclass
class _Seen:
    """Collects one set of data for a site: the problem of the bypass's last layer, and products of the stream's rows.

    products: X^T X for the rows of x with a one at their end; None where it is not needed.
    """

    problem: Problem
    products: Tensor | float | None = None

    def add(self, bypass: LinearBypass, stream: Tensor, goal: Tensor, apart: _Seen | None = None) -> None:
        """Adds one batch.

        stream: the stream before the block's place.
        goal: the stream that the bypass should give.
        apart: where it is given, its problem takes the last eighth of the rows.
        """
        entry = bypass.entry(stream)
        rows = rows_of(bypass.last_layer, entry, stream.shape)
        parts = rows.inputs, rows.pick(stream), rows.pick(goal)
        num_fitted = len(parts[0]) if apart is None else len(parts[0]) - len(parts[0]) // APART
        self._take(*(part[:num_fitted] for part in parts))
        if apart is not None and num_fitted < len(parts[0]):
            apart._take(*(part[num_fitted:] for part in parts))
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
    """Returns a bypass for every site, each fitted as if the other blocks stayed; neither model is changed.

    Raises:
        StageError: the streams are not finite numbers, or not of one shape.
    """
    calibration, holdout = list(calibration), list(holdout)
    together = [site for site in sites if site.arguments.behind == "nothing"]
    groups = [*([together] if together else []), *([site] for site in sites if site not in together)]
    results: dict[BypassSite, FittedBypass] = {}
    for group in groups:  # a fit through an activation keeps its rows, so such sites are fitted one by one
        full_sites = {site: replace(site, arguments=_of_rank(site, None)) for site in group}
        new = {site: _new(model, full_sites[site]) for site in group}
        seen = [_gather(model, reference, new, data) for data in (calibration, holdout)]
        fitted = {site: _fit(new[site], site, *(data[site] for data in seen)) for site in group}
        results |= {site: bypass for site, bypass in fitted.items() if site.arguments.rank is None}
        cut = {site: _cut(model, site, full, seen[0][site]) for site, full in fitted.items() if site not in results}
        if cut:
            reduced_data = [_gather(model, reference, cut, data) for data in (calibration, holdout)]
            for site, bypass in cut.items():
                refitted = _fit(bypass, site, *(data[site] for data in reduced_data))
                results[site] = _never_worse(refitted, fitted[site])
    return [results[site] for site in sites]


def _of_rank(site: BypassSite, rank: int | None) -> LinearBypassArguments:
    return site.arguments.model_copy(update={"rank": rank})


def _new(model: nn.Module, site: BypassSite) -> LinearBypass:
    bypass = make_stand_in(model.get_submodule(site.block), site.arguments)
    assert isinstance(bypass, LinearBypass)
    return bypass


@torch.no_grad()
def _gather(
    model: nn.Module, reference: nn.Module, bypasses: Mapping[BypassSite, LinearBypass], batches: Iterable[Inputs]
) -> dict[BypassSite, _Seen]:
    """Returns the collected data of all sites, after one pass of both models over the batches."""
    collected = {site: _Seen(problem_of(_last(site, bypass))) for site, bypass in bypasses.items()}
    for site, bypass in bypasses.items():
        collected[site].products = (
            0.0 if bypass.arguments.rank != site.arguments.rank else None
        )  # needed to reduce the rank
    entries = {site: ActivationPoint(site.block, "input") for site in bypasses}
    for inputs in batches:
        streams = capture(model, inputs, set(entries.values()))
        goals = capture(reference, inputs, {site.goal for site in bypasses})
        for site, data in collected.items():
            stream, goal = streams[entries[site]], goals[site.goal]
            if stream.shape != goal.shape:
                raise StageError(
                    f"no bypass for {site.block}: the stream before it has shape {tuple(stream.shape)}, "
                    f"but the stream that it should give has shape {tuple(goal.shape)}"
                )
            data.add(bypasses[site], stream, goal)
    return collected


def _last(site: BypassSite, bypass: LinearBypass) -> Site:
    """Returns the site of the bypass's last layer, which is fitted within the bypass alone."""
    point = ActivationPoint(site.block, "output")
    return Site(bypass.last, point, site.goal, joint=Joint(behind=site.arguments.behind))


def _fit(bypass: LinearBypass, site: BypassSite, calibration: _Seen, holdout: _Seen) -> FittedBypass:
    """Fits the last layer of the bypass in place; it stays as it is where no fit lowers the error."""
    improved = improve(bypass, _last(site, bypass), calibration.problem, holdout.problem)
    return FittedBypass(site, bypass, improved.calibration_error, improved.holdout_error)


@torch.no_grad()
def fit_with_rows_apart(model: nn.Module, site: BypassSite, streams: Streams) -> FittedBypass:
    """Returns one fitted bypass where no data are held out.

    The fits are chosen on seven eighths of the rows, by the error on the last eighth, and then repeated on all rows.
    The held-out errors are those of the last eighth.

    streams: for each batch, the stream before the block's place, and the stream that the bypass should give.
    """
    full = replace(site, arguments=_of_rank(site, None))
    wide, seen = _fit_apart(_new(model, full), site, streams)
    if site.arguments.rank is None:
        return wide
    refitted, _ = _fit_apart(_cut(model, site, wide, seen), site, streams)
    return _never_worse(refitted, wide)


def _fit_apart(bypass: LinearBypass, site: BypassSite, streams: Streams) -> tuple[FittedBypass, _Seen]:
    last = _last(site, bypass)
    seen, apart = _Seen(problem_of(last)), _Seen(problem_of(last))
    seen.products = 0.0 if bypass.arguments.rank != site.arguments.rank else None
    for stream, goal in streams:
        seen.add(bypass, stream, goal, apart)
    accepted = improve(copy_model(bypass), last, seen.problem, apart.problem)
    seen.problem.absorb(apart.problem)  # type: ignore[arg-type]  # both are of the site's kind
    repeated = repeat(bypass, last, seen.problem, accepted.moves)
    return FittedBypass(site, bypass, repeated.calibration_error, accepted.holdout_error), seen


@torch.no_grad()
def _cut(model: nn.Module, site: BypassSite, full: FittedBypass, seen: _Seen) -> LinearBypass:
    """Returns a bypass of the site's rank that computes nearly what the full one does."""
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
    """Returns the bypass with the identity's errors as those before; if its own are larger, it becomes the identity."""
    identity_error = full.calibration_error[0]
    elsewhere = None if full.holdout_error is None else full.holdout_error[0]
    after, held_out = fitted.calibration_error[1], fitted.holdout_error
    if not after <= identity_error:
        for parameter in fitted.module.parameters():
            parameter.zero_()
        after, held_out = identity_error, None if elsewhere is None else (elsewhere, elsewhere)
    if elsewhere is not None and held_out is not None:
        held_out = (elsewhere, held_out[1])
    return replace(fitted, calibration_error=(identity_error, after), holdout_error=held_out)
