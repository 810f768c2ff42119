"""Closed-form repair: refit a linear layer by least squares so that what it feeds is again what it was.

Width: the linear or convolution layer that reads pruned channels is refitted on the channels that are left. Depth: the
last linear layer before a dropped block is refitted to imitate the block. Both are one problem: a `layer` whose output
is added to the stream at some `point` of the network; the stream there should equal the `reference` model's at `goal`.

    min_W  || X W - (goal - (point - layer output)) ||^2  +  ridge || W - W_old ||^2

The ridge pulls towards the weights that are there, so the fitted error is never above the old one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.base.settings import Detail
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.layers import channels_of, rows_of, solution_of, weights_from
from toolkit.repair.least_squares import Normal


@dataclass(frozen=True)
class Site:
    """A layer to refit: the stream at `point` should become what `goal` is in the reference model.

    Where the stream is narrower than the reference's, `channels` are those of the reference that are left.
    """

    layer: str
    point: ActivationPoint
    goal: ActivationPoint
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """New weights of a layer, and relative squared errors of the stream before and after, on both sets of data
    (held out: where it was asked for)."""

    site: Site
    weight: Tensor
    bias: Tensor | None
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None

    def detail(self) -> Detail:
        errors = {"calibration_error": self.calibration_error, "holdout_error": self.holdout_error}
        known = {name: {"before": pair[0], "after": pair[1]} for name, pair in errors.items() if pair is not None}
        return {"layer": self.site.layer, **known}


def places_of(site: Site) -> set[ActivationPoint]:
    """What has to be seen of the model that is repaired."""
    return {site.point, ActivationPoint(site.layer, "input"), ActivationPoint(site.layer, "output")}


def add_rows(
    normal: Normal,
    model: nn.Module,
    site: Site,
    seen: Mapping[ActivationPoint, Tensor],
    wanted: Mapping[ActivationPoint, Tensor],
) -> None:
    """One batch more: `seen` are the model's activations at `places_of(site)`, `wanted` the reference's at the goal."""
    layer, output = model.get_submodule(site.layer), seen[ActivationPoint(site.layer, "output")]
    goal = channels_of(layer, wanted[site.goal], site.channels) if site.channels else wanted[site.goal]
    rows = rows_of(layer, seen[ActivationPoint(site.layer, "input")], output.shape)
    normal.add(rows.inputs, rows.pick(goal - (seen[site.point] - output)), rows.pick(goal))


def _gather(
    model: nn.Module, reference: nn.Module, sites: Sequence[Site], batches: Iterable[Inputs]
) -> dict[Site, Normal]:
    """One pass of both models over the data, for all sites at once."""
    normals = {site: Normal() for site in sites}
    goals = {site.goal for site in sites}
    places = {place for site in sites for place in places_of(site)}
    for inputs in batches:
        wanted = capture(reference, inputs, goals)
        seen = capture(model, inputs, places)
        for site in sites:
            add_rows(normals[site], model, site, seen, wanted)
    return normals


def fit_layers(
    model: nn.Module,
    reference: nn.Module,
    sites: Sequence[Site],
    calibration: Iterable[Inputs],
    holdout: Iterable[Inputs],
) -> list[Fitted]:
    """Solve every site on its own, each as if the others stayed as they are. Nothing is changed yet."""
    fitted = _gather(model, reference, sites, calibration)
    held_out = _gather(model, reference, sites, holdout)
    return [fit_site(model, site, fitted[site], held_out[site]) for site in sites]


def fit_site(model: nn.Module, site: Site, normal: Normal, holdout: Normal | None = None) -> Fitted:
    """The layer's new weights. Nothing is changed yet.

    The error on the calibration data is never above the error of the weights that are there; where rounding to the
    layer's dtype would lift it, the old weights are returned.
    """
    layer = model.get_submodule(site.layer)
    old = solution_of(layer)
    before = normal.error(old)
    if not math.isfinite(before):
        raise StageError(f"activations around {site.layer} are not finite numbers; the model or its data is broken")
    new = normal.solve(old).to(next(layer.parameters()).dtype).double()
    after = normal.error(new)
    if not after <= before:
        new, after = old, before
    weight, bias = weights_from(layer, new)
    return Fitted(
        site=site,
        weight=weight,
        bias=bias,
        calibration_error=(before, after),
        holdout_error=None if holdout is None else (holdout.error(old), holdout.error(new)),
    )


@torch.no_grad()
def install(model: nn.Module, fitted: Fitted) -> None:
    """Write fitted weights into the layer."""
    layer = model.get_submodule(fitted.site.layer)
    layer.get_parameter("weight").copy_(fitted.weight)
    if fitted.bias is not None:
        layer.get_parameter("bias").copy_(fitted.bias)


@contextmanager
def installed(model: nn.Module, fitted: Fitted | None) -> Iterator[None]:
    """Fitted weights for the length of the block; the old ones come back."""
    if fitted is None:
        yield
        return
    layer = model.get_submodule(fitted.site.layer)
    old = {name: value.detach().clone() for name, value in layer.state_dict().items()}
    install(model, fitted)
    try:
        yield
    finally:
        layer.load_state_dict(old)
