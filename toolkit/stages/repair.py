"""Closed-form repair: refit a linear layer by least squares so that what it feeds is again what it was.

Width: the linear or convolution layer that reads pruned channels is refitted on the channels that are left. Depth: the
last linear layer before a dropped block is refitted to imitate the block. Both are one problem: a `layer` whose output
is added to the stream at some `point` of the network; the stream there should equal the `reference` model's at `goal`.

    min_W  || X W - (goal - (point - layer output)) ||^2  +  ridge || W - W_old ||^2

The ridge pulls towards the weights that are there, so the fitted error is never above the old one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from toolkit.errors import StageError
from toolkit.observe import tensors_in
from toolkit.stages.context import Detail
from toolkit.stages.regression import channels_of, rows_of, solution_of, weights_from

RIDGE = 1e-3  # of the mean diagonal of X^T X
Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Point:
    """A place in a network: what goes into a module (its first tensor), or what comes out of it."""

    module: str
    side: str  # "input" or "output"


@dataclass(frozen=True)
class Site:
    """A layer to refit: the stream at `point` should become what `goal` is in the reference model.

    Where the stream is narrower than the reference's, `channels` are those of the reference that are left.
    """

    layer: str
    point: Point
    goal: Point
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """New weights of a layer, and relative squared errors of the stream before and after, on both sets of data."""

    site: Site
    weight: Tensor
    bias: Tensor | None
    calibration_error: tuple[float, float]
    holdout_error: tuple[float, float]

    def detail(self) -> Detail:
        calibration, holdout = self.calibration_error, self.holdout_error
        return {
            "layer": self.site.layer,
            "calibration_error": {"before": calibration[0], "after": calibration[1]},
            "holdout_error": {"before": holdout[0], "after": holdout[1]},
        }


class _AllSeenError(Exception):
    """All captured places have been seen: the rest of the forward pass is not needed."""


@contextmanager
def watched(model: nn.Module, points: Iterable[Point], note: Callable[[Point, Tensor], None]) -> Iterator[None]:
    """Forward passes call `note` with a copy of the first tensor at each point that they come by."""

    def look(point: Point, value: object) -> None:
        tensors = tensors_in(value)
        if tensors:
            note(point, tensors[0].detach().clone())  # models may change it in place

    handles: list[RemovableHandle] = []
    for point in points:
        module = model.get_submodule(point.module)
        if point.side == "input":
            before = partial(_before, look=partial(look, point))
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(lambda _, __, out, p=point: look(p, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], look: Callable[[object], None]) -> None:
    look((*args, *kwargs.values()))


@torch.no_grad()
def capture(model: nn.Module, inputs: Inputs, points: Iterable[Point]) -> dict[Point, Tensor]:
    """The activations at `points` for one batch of inputs; the pass ends once every point has been passed."""
    seen: dict[Point, Tensor] = {}
    wanted = set(points)

    def note(point: Point, value: Tensor) -> None:
        seen[point] = value
        if len(seen) == len(wanted):
            raise _AllSeenError

    with watched(model, wanted, note), suppress(_AllSeenError):
        model(*inputs)
    return seen


class _Normal:
    """One least-squares problem, in float64; rows are streamed in.

    They are kept as they are while there are fewer of them than unknowns, and as sums of products from then on.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Tensor, Tensor]] = []  # (X, T)
        self.gram: Tensor | None = None  # X^T X
        self.cross: Tensor | float = 0.0  # X^T T
        self.target = 0.0  # sum of T^2
        self.scale = 0.0  # sum of goal^2

    def add(self, rows: Tensor, target: Tensor, goal: Tensor) -> None:
        self.rows.append((rows.double(), target.double()))
        self.scale += float(goal.double().square().sum())
        if self.gram is not None or sum(len(part) for part, _ in self.rows) > rows.shape[1]:
            for part, wanted in self.rows:
                product = part.T @ part
                self.gram = product if self.gram is None else self.gram + product
                self.cross = self.cross + part.T @ wanted
                self.target += float(wanted.square().sum())
            self.rows = []

    def error(self, solution: Tensor) -> float:
        """Relative squared error of `solution` [inputs, outputs]."""
        if self.gram is None:
            total = sum(float((wanted - part @ solution).square().sum()) for part, wanted in self.rows)
        else:
            assert isinstance(self.cross, Tensor)
            fit = (solution * (self.gram @ solution)).sum() - 2 * (solution * self.cross).sum() + self.target
            total = max(float(fit), 0.0)
        return total / max(self.scale, 1e-30)

    def solve(self, old: Tensor) -> Tensor:
        """With few rows X, the same solution by way of X X^T."""
        if self.gram is None:
            part, wanted = (torch.cat(parts) for parts in zip(*self.rows, strict=True))
            ridge = RIDGE * part.square().sum() / part.shape[1]
            step: Tensor = part.T @ _solve(part @ part.T, ridge, wanted - part @ old)
            return old + step
        assert isinstance(self.cross, Tensor)
        return old + _solve(self.gram, RIDGE * self.gram.diagonal().mean(), self.cross - self.gram @ old)


def _solve(matrix: Tensor, ridge: Tensor, right: Tensor) -> Tensor:
    regular = matrix + ridge.clamp(min=1e-30) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    solution: Tensor = torch.linalg.solve(regular, right)
    return solution


def _gather(
    model: nn.Module, reference: nn.Module, sites: Sequence[Site], batches: Iterable[Inputs]
) -> dict[Site, _Normal]:
    """One pass of both models over the data, for all sites at once."""
    normals = {site: _Normal() for site in sites}
    goals = {site.goal for site in sites}
    places = {
        place for site in sites for place in (site.point, Point(site.layer, "input"), Point(site.layer, "output"))
    }
    for inputs in batches:
        wanted = capture(reference, inputs, goals)
        seen = capture(model, inputs, places)
        for site in sites:
            layer, output = model.get_submodule(site.layer), seen[Point(site.layer, "output")]
            goal = channels_of(layer, wanted[site.goal], site.channels) if site.channels else wanted[site.goal]
            rows = rows_of(layer, seen[Point(site.layer, "input")], output.shape)
            normals[site].add(rows.inputs, rows.pick(goal - (seen[site.point] - output)), rows.pick(goal))
    return normals


def fit_layers(
    model: nn.Module,
    reference: nn.Module,
    sites: Sequence[Site],
    calibration: Iterable[Inputs],
    holdout: Iterable[Inputs],
) -> list[Fitted]:
    """Solve every site on its own, each as if the others stayed as they are. Nothing is changed yet.

    The error on the calibration data is never above the error of the weights that are there; where rounding to the
    layer's dtype would lift it, the old weights are returned.
    """
    fitted = _gather(model, reference, sites, calibration)
    held_out = _gather(model, reference, sites, holdout)
    results = []
    for site in sites:
        layer = model.get_submodule(site.layer)
        old = solution_of(layer)
        before = fitted[site].error(old)
        if not math.isfinite(before):
            raise StageError(f"activations around {site.layer} are not finite numbers; the model or its data is broken")
        new = fitted[site].solve(old).to(next(layer.parameters()).dtype).double()
        after = fitted[site].error(new)
        if not after <= before:
            new, after = old, before
        weight, bias = weights_from(layer, new)
        results.append(
            Fitted(
                site=site,
                weight=weight,
                bias=bias,
                calibration_error=(before, after),
                holdout_error=(held_out[site].error(old), held_out[site].error(new)),
            )
        )
    return results


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
