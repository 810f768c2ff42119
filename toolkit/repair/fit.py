"""Closed-form repair: refit a linear layer by least squares so that what it feeds is again what it was.

Width: the linear or convolution layer that reads pruned channels is refitted on the channels that are left. Depth: the
last layer that joins the stream before a dropped block is refitted to imitate the block. Both are one problem: a
`layer` whose output is added to the stream at some `point` of the network; the stream there should equal the
`reference` model's at `goal`.

    min_W  || act(X W + rest) - goal ||^2  +  ridge || W - W_old ||^2,    rest = sum at the point - layer's part

A BatchNorm that reads the layer alone is fitted with it. `act` is what stands between the sum and the point: nothing or
a ReLU. The ridge pulls towards the weights that are there, so the fitted error is never above the old one.
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
from toolkit.repair.joint import PLAIN, Joint, lifted, tail_of
from toolkit.repair.layers import channels_of, rows_of, solution_of, weights_from
from toolkit.repair.least_squares import Normal
from toolkit.repair.through import ThroughActivation

Problem = Normal | ThroughActivation


@dataclass(frozen=True)
class Site:
    """A layer to refit: the stream at `point` should become what `goal` is in the reference model.

    Where the stream is narrower than the reference's, `channels` are those of the reference that are left.
    joint: how the layer's output joins the stream at `point`.
    goal_joint: how it joins the stream at `goal` in the reference, where the goal is the sum before an activation.
    """

    layer: str
    point: ActivationPoint
    goal: ActivationPoint
    channels: tuple[int, ...] = ()
    joint: Joint = PLAIN
    goal_joint: Joint | None = None

    @property
    def is_through(self) -> bool:
        """Whether the fit is to the stream behind the activation, not to the sum before it."""
        return self.joint.behind != "nothing" and self.goal_joint is None


@dataclass(frozen=True)
class Fitted:
    """New weights of a layer, and relative squared errors of the stream before and after, on both sets of data
    (held out: where it was asked for). `norm`: new weights and statistics of the BatchNorm that was fitted with it."""

    site: Site
    weight: Tensor
    bias: Tensor | None
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None
    norm: Mapping[str, Tensor] | None = None

    def detail(self) -> Detail:
        errors = {"calibration_error": self.calibration_error, "holdout_error": self.holdout_error}
        known = {name: {"before": pair[0], "after": pair[1]} for name, pair in errors.items() if pair is not None}
        return {"layer": self.site.layer, **known}


def places_of(site: Site) -> set[ActivationPoint]:
    """What has to be seen of the model that is repaired."""
    return {site.point, ActivationPoint(site.layer, "input"), ActivationPoint(site.layer, "output")}


def problem_of(site: Site) -> Problem:
    return ThroughActivation(site.joint.behind) if site.is_through else Normal()


def look_at_model(model: nn.Module, site: Site, inputs: Inputs) -> dict[ActivationPoint, Tensor]:
    """Returns the activations at `places_of(site)`, with the sum in the place of what comes out behind it."""
    with lifted(model, site.layer, site.joint):
        seen = capture(model, inputs, places_of(site))
    if site.joint.lift:
        seen[site.point] = seen[site.point] - site.joint.lift
        if site.joint.norm is None:
            output = ActivationPoint(site.layer, "output")
            seen[output] = seen[output] - site.joint.lift
    return seen


def look_at_goal(reference: nn.Module, site: Site, inputs: Inputs) -> Tensor:
    """Returns what the stream should become, from the reference."""
    if site.goal_joint is None:
        return capture(reference, inputs, {site.goal})[site.goal]
    with lifted(reference, site.layer, site.goal_joint):
        return capture(reference, inputs, {site.goal})[site.goal] - site.goal_joint.lift


def add_rows(
    problem: Problem, model: nn.Module, site: Site, seen: Mapping[ActivationPoint, Tensor], wanted: Tensor
) -> None:
    """One batch more: `seen` are the model's activations as `look_at_model` gives them, `wanted` the goal."""
    layer, output = model.get_submodule(site.layer), seen[ActivationPoint(site.layer, "output")]
    goal = channels_of(layer, wanted, site.channels) if site.channels else wanted
    rows = rows_of(layer, seen[ActivationPoint(site.layer, "input")], output.shape, site.joint.norm is not None)
    part = output
    if site.joint.norm is not None:
        scale, offset = (value.view(-1, *[1] * (output.dim() - 2)) for value in tail_of(model, site.layer, site.joint))
        part = (output.double() * scale + offset).to(output.dtype)
    rest = rows.pick(seen[site.point] - part)
    if isinstance(problem, ThroughActivation):
        problem.add(rows.inputs, rest, rows.pick(goal))
    else:
        problem.add(rows.inputs, rows.pick(goal) - rest, rows.pick(goal))


def _gather(
    model: nn.Module, reference: nn.Module, sites: Sequence[Site], batches: Iterable[Inputs]
) -> dict[Site, Problem]:
    """One pass of both models over the data for all sites at once, but for those whose sums have to be lifted."""
    problems = {site: problem_of(site) for site in sites}
    plain = [site for site in sites if not site.joint.lift and site.goal_joint is None]
    goals = {site.goal for site in plain}
    places = {place for site in plain for place in places_of(site)}
    for inputs in batches:
        wanted = capture(reference, inputs, goals) if plain else {}
        seen = capture(model, inputs, places) if plain else {}
        for site, problem in problems.items():
            if site in plain:
                add_rows(problem, model, site, seen, wanted[site.goal])
            else:
                goal = look_at_goal(reference, site, inputs)
                add_rows(problem, model, site, look_at_model(model, site, inputs), goal)
    return problems


def fit_layers(
    model: nn.Module,
    reference: nn.Module,
    sites: Sequence[Site],
    calibration: Iterable[Inputs],
    holdout: Iterable[Inputs],
) -> list[Fitted]:
    """Solve every site on its own, each as if the others stayed as they are. Nothing is changed yet.

    Sites whose rows have to be kept are solved one after another, so that only one site's rows are held at a time.
    """
    calibration, holdout = list(calibration), list(holdout)
    together = [site for site in sites if not site.joint.lift]
    groups = [*([together] if together else []), *([site] for site in sites if site.joint.lift)]
    found: dict[Site, Fitted] = {}
    for group in groups:
        fitted = _gather(model, reference, group, calibration)
        held_out = _gather(model, reference, group, holdout)
        found |= {site: fit_site(model, site, fitted[site], held_out[site]) for site in group}
    return [found[site] for site in sites]


def fit_site(model: nn.Module, site: Site, problem: Problem, holdout: Problem | None = None) -> Fitted:
    """The layer's new weights. Nothing is changed yet.

    The error on the calibration data is never above the error of the weights that are there; where rounding to the
    layer's dtype would lift it, the old weights are returned.
    """
    layer = model.get_submodule(site.layer)
    old = _solution_at(model, site)
    before = problem.error(old)
    if not math.isfinite(before):
        raise StageError(f"activations around {site.layer} are not finite numbers; the model or its data is broken")
    new = problem.solve(old).to(next(layer.parameters()).dtype).double()
    after = problem.error(new)
    if not after <= before:
        new, after = old, before
    errors = (before, after), None if holdout is None else (holdout.error(old), holdout.error(new))
    if site.joint.norm is None:
        return Fitted(site, *weights_from(layer, new), *errors)
    if new is old:
        weight, bias = layer.get_parameter("weight").detach().clone(), getattr(layer, "bias", None)
        return Fitted(site, weight, None if bias is None else bias.detach().clone(), *errors)
    return Fitted(site, *_with_norm(model, site, new), *errors[:2], _norm_values(model, site, new, problem))


def _solution_at(model: nn.Module, site: Site) -> Tensor:
    """The layer and the BatchNorm behind it as one linear map [fan-in (+ 1), outputs], in float64."""
    layer = model.get_submodule(site.layer)
    if site.joint.norm is None:
        return solution_of(layer)
    scale, offset = tail_of(model, site.layer, site.joint)
    weights = layer.get_parameter("weight").detach().double().flatten(1).T * scale
    bias = getattr(layer, "bias", None)
    return torch.cat([weights, (offset if bias is None else offset + bias.detach().double() * scale)[None]])


def _with_norm(model: nn.Module, site: Site, solution: Tensor) -> tuple[Tensor, Tensor | None]:
    """The layer takes the map's weights; the BatchNorm takes its offset."""
    layer = model.get_submodule(site.layer)
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    new = solution[:-1].T.reshape(weight.shape).to(weight.dtype).contiguous()
    return new, None if bias is None else torch.zeros_like(bias)


def _norm_values(model: nn.Module, site: Site, solution: Tensor, problem: Problem) -> dict[str, Tensor]:
    """The BatchNorm with the statistics that the new outputs have, so that it can be trained and estimated again."""
    assert site.joint.norm is not None
    norm = model.get_submodule(site.joint.norm)
    linear = torch.cat([solution[:-1], torch.zeros_like(solution[-1:])])
    mean, variance = problem.output_moments(linear)
    values = {"running_mean": mean, "running_var": variance, "bias": solution[-1] + mean}
    values["weight"] = (variance + float(norm.eps)).sqrt()  # type: ignore[arg-type]  # every BatchNorm has it
    return {name: value.to(norm.get_parameter("weight").dtype) for name, value in values.items()}


@torch.no_grad()
def install(model: nn.Module, fitted: Fitted) -> None:
    """Write fitted weights into the layer, and into the BatchNorm that was fitted with it."""
    layer = model.get_submodule(fitted.site.layer)
    layer.get_parameter("weight").copy_(fitted.weight)
    if fitted.bias is not None:
        layer.get_parameter("bias").copy_(fitted.bias)
    if fitted.norm is not None and fitted.site.joint.norm is not None:
        norm = model.get_submodule(fitted.site.joint.norm)
        for name, value in fitted.norm.items():
            getattr(norm, name).copy_(value)


@contextmanager
def installed(model: nn.Module, fitted: Fitted | None) -> Iterator[None]:
    """Fitted weights for the length of the block; the old ones come back."""
    if fitted is None:
        yield
        return
    names = [name for name in (fitted.site.layer, fitted.site.joint.norm) if name is not None]
    modules = [model.get_submodule(name) for name in names]
    old = [{name: value.detach().clone() for name, value in module.state_dict().items()} for module in modules]
    install(model, fitted)
    try:
        yield
    finally:
        for module, state in zip(modules, old, strict=True):
            module.load_state_dict(state)
