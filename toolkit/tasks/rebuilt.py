"""Compares the rebuilt baseline with the trained model: figures of the one must hold for the other."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.paths import Path
from toolkit.hooks.repeats import why_not_repeatable
from toolkit.hooks.tensors import tensors_in
from toolkit.hooks.trial import try_model


def check_rebuilt(given: nn.Module, rebuilt: nn.Module, inputs: tuple[Tensor, ...], what: str) -> None:
    """Checks that the rebuilt baseline computes what the trained model does; both run in eval mode.

    given: the trained model, on any device.
    rebuilt: the model of `build_model` with the trained weights, on the CPU.
    what: what messages call the trained model.

    Raises:
        UserError: the outputs differ by more than rounding; the message names the largest error and the likely cause.
    """
    new = tensors_in(try_model(rebuilt, inputs, "the model that build_model builds, with the trained weights,"))
    old = _outputs_where_it_is(given, inputs, what)
    if [part.shape for part in old] != [part.shape for part in new]:
        shapes = [list(part.shape) for part in old], [list(part.shape) for part in new]
        raise UserError(
            f"{what} gives outputs of shapes {shapes[0]}, and what build_model builds, with the same weights, "
            f"{shapes[1]}: build_model must build the same architecture{_cause(given, rebuilt)}"
        )
    errors = [_relative_error(*pair) for pair in zip(old, new, strict=True)]
    allowed = _tolerance(given, rebuilt)
    if max(errors) <= allowed:
        return
    repeated = _outputs_where_it_is(given, inputs, what)
    repeat_errors = [_relative_error(*pair) for pair in zip(old, repeated, strict=True)]
    why = why_not_repeatable(given, Path(_as_it_takes(given, inputs)))
    if max(repeat_errors) > allowed or why:
        raise UserError(
            f"{what} does not repeat itself: {why or f'two passes differ by {max(repeat_errors):.2g} of their size'}; "
            "what is random in its forward method must depend on self.training, and state that it keeps must not "
            "change its outputs"
        )
    raise UserError(
        f"the baseline is not the trained model: what build_model builds, with the weights of {what}, gives outputs "
        f"that differ by {max(errors):.2g} of their size on the same examples{_cause(given, rebuilt)}"
    )


def _outputs_where_it_is(model: nn.Module, inputs: tuple[Tensor, ...], what: str) -> list[Tensor]:
    """Returns the outputs of a model that runs on its own device and in its own floating type, on the CPU."""
    return [part.detach().cpu() for part in tensors_in(try_model(model, _as_it_takes(model, inputs), what))]


def _as_it_takes(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns the inputs on the device of the model and in its floating type."""
    first = next((part for part in model.parameters() if part.is_floating_point()), None)
    if first is None:
        return inputs
    return tuple(part.to(first.device, first.dtype if part.is_floating_point() else part.dtype) for part in inputs)


def _relative_error(one: Tensor, other: Tensor) -> float:
    """Returns the largest difference over the root mean square of the first tensor; NaN counts as equal to NaN."""
    if not one.is_floating_point():
        return 0.0 if torch.equal(one, other.to(one.dtype)) else 1.0
    first, second = one.double(), other.double()
    same = (first == second) | (first.isnan() & second.isnan())
    gap = torch.where(same, 0.0, (first - second).abs())
    scale = torch.where(first.isfinite(), first, 0.0).square().mean().sqrt().clamp(min=1e-12)
    worst = float((gap / scale).max()) if gap.numel() else 0.0
    return math.inf if math.isnan(worst) else worst  # one of the two values is NaN


def _tolerance(*models: nn.Module) -> float:
    """Returns the relative error that rounding may cause in the coarsest floating type and on other devices."""
    kinds = [part.dtype for model in models for part in model.parameters() if part.is_floating_point()]
    devices = {part.device.type for model in models for part in model.parameters()}
    rounding = max((torch.finfo(kind).eps for kind in kinds), default=0.0)
    return max(1e-4 if devices <= {"cpu"} else 1e-2, 8 * rounding if rounding > 1e-4 else 0.0)


def _cause(given: nn.Module, rebuilt: nn.Module) -> str:
    """Returns in words the likely cause of a difference: what the models hold differently, with up to three names."""
    causes = (
        ("modules of another class", _other_classes(given, rebuilt), "build_model must build the same architecture"),
        (
            "buffers that the state_dict leaves out (persistent=False)",
            _other_buffers(given, rebuilt),
            "build_model must set them, or make them persistent",
        ),
        (
            "weights that eval(), train() or loading has changed",
            _other_weights(given, rebuilt),
            "merge them into the model before it is given, or give a model without them",
        ),
        (
            "attributes that the state_dict does not hold",
            _other_attributes(given, rebuilt),
            "build_model must set them, or register tensors as buffers",
        ),
    )
    for what, names, remedy in causes:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            return f". Likely cause: {what}: {', '.join(names[:3])}{more}; {remedy}"
    return ". No parameter, buffer or plain attribute differs: the models differ in their code, or in state elsewhere"


def _other_classes(given: nn.Module, rebuilt: nn.Module) -> list[str]:
    rebuilt_classes = {name: type(module).__name__ for name, module in rebuilt.named_modules()}
    return [
        f"{name or 'the model'} ({type(module).__name__}, not {rebuilt_classes.get(name, 'there')})"
        for name, module in given.named_modules()
        if rebuilt_classes.get(name) != type(module).__name__
    ]


def _other_buffers(given: nn.Module, rebuilt: nn.Module) -> list[str]:
    saved, rebuilt_buffers = given.state_dict().keys(), dict(rebuilt.named_buffers())
    return [
        name
        for name, value in given.named_buffers()
        if name not in saved and not _alike(value, rebuilt_buffers.get(name))
    ]


def _other_weights(given: nn.Module, rebuilt: nn.Module) -> list[str]:
    rebuilt_state = rebuilt.state_dict()
    return [name for name, value in given.state_dict().items() if not _alike(value, rebuilt_state.get(name))]


def _other_attributes(given: nn.Module, rebuilt: nn.Module) -> list[str]:
    """Returns the names of the plain attributes that differ: numbers, texts, tensors, and containers of them."""
    rebuilt_modules = dict(rebuilt.named_modules())
    attributes_of_torch = set(vars(nn.Module()))
    return [
        f"{name}.{attribute}".removeprefix(".")
        for name, module in given.named_modules()
        if name in rebuilt_modules
        for attribute, value in vars(module).items()
        if attribute not in attributes_of_torch and not _alike(value, vars(rebuilt_modules[name]).get(attribute))
    ]


def _alike(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        if not isinstance(other, Tensor) or value.shape != other.shape:
            return False
        if not value.is_floating_point():
            return bool(torch.equal(value.cpu(), other.cpu().to(value.dtype)))
        return (
            _relative_error(value.detach().cpu(), other.detach().cpu()) <= 1e-3
        )  # allows for rounding to another floating type
    if isinstance(value, (tuple, list)) and isinstance(other, (tuple, list)):
        return len(value) == len(other) and all(_alike(*pair) for pair in zip(value, other, strict=True))
    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_alike(value[key], other[key]) for key in value)
    plain = (bool, int, float, str, type(None))
    return value == other if isinstance(value, plain) and isinstance(other, plain) else type(value) is type(other)
