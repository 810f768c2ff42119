"""Running a model only to look at it: modes are put back, and outputs of any nesting are read as a list of tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from toolkit.hooks.held import attributes_kept


@contextlib.contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Eval mode, after which every single module has its own former mode and attributes again, an error or not."""
    with in_eval_mode(*models), attributes_kept(*models):
        yield


@contextlib.contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """Eval mode, after which every single module has its own former mode again; for changes that are to stay."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # not eval(): a model that overrides train() would keep parts in another mode
        yield
    finally:
        for module, training in modes:
            module.training = training


def with_flags_of(model: nn.Module, other: nn.Module) -> nn.Module:
    """Returns the model, in which a parameter is frozen (requires_grad) where that of the same name is in the other.

    Parameters that only `model` has keep their flags.
    """
    flags = {name: parameter.requires_grad for name, parameter in other.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags.get(name, parameter.requires_grad))
    return model


@contextlib.contextmanager
def without_fast_path() -> Iterator[None]:
    """Keep nn.MultiheadAttention and nn.TransformerEncoder from hiding their operators in fused kernels."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
