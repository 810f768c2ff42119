"""Puts models into eval mode for a while and restores every mode afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from toolkit.hooks.held import attributes_kept


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Puts models into eval mode for the length of the `with`, then restores modes and attributes of all modules."""
    with in_eval_mode(*models), attributes_kept(*models):
        yield


@contextlib.contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Puts models into eval mode for the length of the `with`, then restores the mode of every module.

    Attributes that change inside stay changed, unlike with `evaluating`.
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # not eval(): a model that overrides train() would keep parts in another mode
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def training_noted(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether a part of the model was in training mode at one of its calls."""
    seen: list[bool] = []
    handle = model.register_forward_pre_hook(lambda *_: seen.append(any(part.training for part in model.modules())))
    try:
        yield lambda: any(seen)
    finally:
        handle.remove()


def with_flags_of(model: nn.Module, other: nn.Module) -> nn.Module:
    """Returns the model after its parameters took requires_grad from the parameters of the same names in `other`.

    Parameters that `other` does not have keep their flags.
    """
    flags = {name: parameter.requires_grad for name, parameter in other.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, parameter.requires_grad))
    return model


def all_trained(model: nn.Module) -> nn.Module:
    """Returns the model after all its parameters that can have a gradient were unfrozen; integers cannot."""
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return model


def device_of(model: nn.Module) -> torch.device:
    """Returns the device of the model's first parameter; the CPU if there is none."""
    return next((part.device for part in model.parameters()), torch.device("cpu"))


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Keeps nn.MultiheadAttention and nn.TransformerEncoder from hiding their operators in fused kernels."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
