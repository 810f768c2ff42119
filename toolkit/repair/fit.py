"""Repairs in closed form: refits a layer by least squares, so that the stream behind it is again the reference's.

Width: the linear or convolution layer that reads pruned channels is refitted on the channels that are left. Depth: the
last layer that joins the stream before a dropped block is refitted to imitate the block. Both are one problem: the
output of a `layer` is added to the stream at some `point` of the network, where the stream should equal the reference
model's at `goal`.

    min_W  || act(X W + rest) - goal ||^2  +  ridge || W - W_old ||^2,    rest = sum at the point - layer's part

act: what stands between the sum and the point, nothing or a ReLU. A BatchNorm that alone reads the layer is fitted with
it. The ridge damps towards the old weights; its strength is chosen by the error on data that the fit did not see. The
error never rises, neither there nor on the data of the fit: otherwise the old weights stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.base.settings import Detail
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.repair.damping import Damping, choose, dampings_that_help
from toolkit.repair.folded import folded_solution, held_solution, unfolded_norm, unfolded_weights
from toolkit.repair.joint import tail_of
from toolkit.repair.layers import channels_of, rows_of, without_padding
from toolkit.repair.least_squares import Normal
from toolkit.repair.site import Site, look_at_goal, look_at_model, places_of
from toolkit.repair.through import ThroughActivation

Problem = Normal | ThroughActivation

APART = 8  # one row in 8 is set apart to choose the damping where no data are held out


@dataclass(frozen=True)
class Fitted:
    """Holds new weights of a layer, and relative squared errors of the stream before and after.

    calibration_error: the errors on the data of the fit.
    holdout_error: the errors on held-out data, which are slightly too low, as these data choose the damping; None where
        there were none.
    norm: new weights and statistics of the BatchNorm that was fitted with the layer.
    damping: how strongly the fit was damped; None where no fit helped and the weights are the old ones.
    """

    site: Site
    weight: Tensor
    bias: Tensor | None
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float] | None
    norm: Mapping[str, Tensor] | None = None
    damping: Damping | None = None

    def detail(self) -> Detail:
        """Returns what a run records of the fit."""
        errors = {"calibration_error": self.calibration_error, "holdout_error": self.holdout_error}
        by_name = {name: {"before": pair[0], "after": pair[1]} for name, pair in errors.items() if pair is not None}
        damping = None if self.damping is None else asdict(self.damping)
        return {"layer": self.site.layer, **by_name, "damping": damping, "stayed": self.damping is None}


def problem_of(site: Site) -> Problem:
    """Returns an empty problem of the kind that a site needs."""
    return ThroughActivation(site.joint.behind) if site.is_through else Normal()


def add_rows(
    problem: Problem,
    model: nn.Module,
    site: Site,
    seen: Mapping[ActivationPoint, Tensor],
    wanted: Tensor,
    apart: Problem | None = None,
) -> None:
    """Adds one batch to the problem of a site.

    seen: the model's activations, as `look_at_model` gives them.
    wanted: the goal.
    apart: where it is given, this problem takes the last eighth of the rows instead.
    """
    layer, output = model.get_submodule(site.layer), seen[ActivationPoint(site.layer, "output")]
    goal = channels_of(layer, wanted, site.channels) if site.channels else wanted
    rows = rows_of(layer, seen[ActivationPoint(site.layer, "input")], output.shape, site.joint.norm is not None)
    part = rows.pick(output).double()
    if site.joint.norm is not None or site.joint.scale:
        scale, offset = tail_of(model, site.layer, site.joint)
        part = part * scale + offset
    stream, goal = (rows.pick(site.joint.like_output(each, output.shape)) for each in (seen[site.point], goal))
    parts = without_padding(rows.inputs, stream.double() - part, goal.double())
    num_fitted = len(parts[0]) if apart is None else len(parts[0]) - len(parts[0]) // APART
    _add(problem, *(value[:num_fitted] for value in parts))
    if apart is not None and num_fitted < len(parts[0]):
        _add(apart, *(value[num_fitted:] for value in parts))


def _add(problem: Problem, inputs: Tensor, rest: Tensor, goal: Tensor) -> None:
    if isinstance(problem, ThroughActivation):
        problem.add(inputs, rest, goal)
    else:
        problem.add(inputs, goal - rest, goal)


def _gather(
    model: nn.Module, reference: nn.Module, sites: Sequence[Site], batches: Iterable[Inputs]
) -> dict[Site, Problem]:
    """Returns the problems of all sites after one pass of both models; sites with lifted sums take their own passes."""
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
    """Returns new weights for every site, each fitted as if the others stayed; the model is not changed.

    Sites whose rows must be kept are fitted one after another, so that only one site's rows are held at a time.
    """
    calibration, holdout = list(calibration), list(holdout)
    together = [site for site in sites if not site.joint.lift]
    groups = [*([together] if together else []), *([site] for site in sites if site.joint.lift)]
    results: dict[Site, Fitted] = {}
    for group in groups:
        fitted = _gather(model, reference, group, calibration)
        held_out = _gather(model, reference, group, holdout)
        results |= {site: fit_site(model, site, fitted[site], held_out[site]) for site in group}
    return [results[site] for site in sites]


def fit_site(
    model: nn.Module,
    site: Site,
    problem: Problem,
    holdout: Problem | None = None,
    dampings: Sequence[Damping] | None = None,
) -> Fitted:
    """Returns the layer's new weights; the model is not changed.

    The old weights are returned if every fit raises the error on the calibration data or on the held-out data, even if
    only by rounding to the layer's number type.

    holdout: the problem of the held-out data; None where there are none.
    dampings: the dampings to try, of which the first is taken that raises no error; None lets the held-out data choose.

    Raises:
        StageError: the activations are not finite numbers.
    """
    layer = model.get_submodule(site.layer)
    old = folded_solution(model, site.layer, site.joint)
    choice = choose(problem, holdout, old, partial(held_solution, model, site.layer, site.joint), dampings)
    if not all(map(math.isfinite, (choice.error[0], (choice.error_elsewhere or choice.error)[0]))):
        raise StageError(f"activations around {site.layer} are not finite numbers; the model or its data is broken")
    result = partial(
        Fitted,
        site,
        calibration_error=choice.error,
        holdout_error=choice.error_elsewhere,
        damping=choice.damping,
    )
    if choice.damping is None:
        bias = getattr(layer, "bias", None)
        return result(layer.get_parameter("weight").detach().clone(), None if bias is None else bias.detach().clone())
    norm = None
    if site.joint.norm is not None:
        norm = unfolded_norm(model, site.joint.norm, choice.solution, problem)
    return result(*unfolded_weights(model, site.layer, site.joint, choice.solution), norm=norm)


def fit_with_part_apart(model: nn.Module, site: Site, problem: Problem, apart: Problem) -> Fitted:
    """Returns the layer's weights fitted to both problems; the model is not changed.

    The damping is the one with the least error on `apart` when only `problem` is fitted. The old weights are returned
    if no damping lowers that error. Neither problem may be used any more.
    """
    old = folded_solution(model, site.layer, site.joint)
    dampings = dampings_that_help(problem, apart, old, partial(held_solution, model, site.layer, site.joint))
    problem.absorb(apart)  # type: ignore[arg-type]  # both are of the site's kind
    return fit_site(model, site, problem, dampings=dampings)


@torch.no_grad()
def install(model: nn.Module, fitted: Fitted) -> None:
    """Writes fitted weights into the layer, and into the BatchNorm that was fitted with it."""
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
    """Installs fitted weights for the length of the `with`, and restores the old ones; None installs nothing."""
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
