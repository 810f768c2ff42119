"""Folds weights that are computed at every pass, as by weight_norm, spectral_norm, parametrizations and masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from toolkit.base.errors import UserError
from toolkit.hooks.modes import in_eval_mode


def computed_tensors(model: nn.Module) -> dict[str, str]:
    """Returns what computes each tensor that can be folded: `{"blocks.0.weight": "weight_norm"}`."""
    kinds: dict[str, str] = {}
    for name, module in model.named_modules():
        for leaf, kind in _of_module(module):
            kinds[f"{name}.{leaf}" if name else leaf] = kind
    return kinds


def fold_tensors(model: nn.Module, names: Iterable[str]) -> None:
    """Replaces the named tensors, in place, by parameters with the values that the tensors have in eval mode.

    Parameters that only served to compute a tensor are removed. A folded tensor is trainable if one of these parameters
    was, and stays a plain tensor if there were none.

    Raises:
        UserError: a name is not among `computed_tensors`, or torch cannot remove what computes the tensor.
    """
    for full_name in names:
        name, _, leaf = full_name.rpartition(".")
        module = dict(model.named_modules()).get(name)
        kind = None if module is None else dict(_of_module(module)).get(leaf)
        if module is None or kind is None:
            raise UserError(f"{full_name} is not computed from other tensors in this model, so it cannot be folded")
        sources = list(module.parameters())
        is_trained = any(part.requires_grad for part in sources)
        try:
            with in_eval_mode(model), torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the old forms are deprecated, but old models have them
                remove_computation(module, leaf, kind)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{full_name} is computed by {kind}, which cannot be folded: {error}") from error
        if sources:
            make_parameter(module, leaf, is_trained)


def fold_all(model: nn.Module) -> dict[str, str]:
    """Folds all tensors of `computed_tensors`, in place, and returns what computed each of them."""
    kinds = computed_tensors(model)
    fold_tensors(model, kinds)
    return kinds


def _of_module(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yields the name of each computed tensor of one module, and what computes it."""
    if parametrize.is_parametrized(module):
        for leaf, parts in module.parametrizations.items():  # type: ignore[union-attr,operator]
            kinds = [type(part).__name__.lstrip("_") for part in parts]
            yield leaf, f"the parametrization {' and '.join(kinds)}"
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            yield hook.name, "weight_norm"
        elif isinstance(hook, SpectralNorm):
            yield hook.name, "spectral_norm"
        elif isinstance(hook, prune.BasePruningMethod):
            yield hook._tensor_name, "a pruning mask"


def make_parameter(module: nn.Module, leaf: str, is_trained: bool) -> None:
    """Makes a folded tensor a parameter of its module; torch leaves it a plain tensor where its sources were frozen."""
    value = getattr(module, leaf)
    if not isinstance(value, nn.Parameter):
        delattr(module, leaf)
        module.register_parameter(leaf, nn.Parameter(value.detach().clone()))
    module.get_parameter(leaf).requires_grad_(is_trained)


def remove_computation(module: nn.Module, leaf: str, kind: str) -> None:
    """Removes what computes a tensor of a module, which is then a plain tensor or a parameter.

    kind: what computes it, in the words of `computed_tensors`.
    """
    if kind == "weight_norm":
        remove_weight_norm(module, leaf)
    elif kind == "spectral_norm":
        remove_spectral_norm(module, leaf)
        for key, hook in list(module._load_state_dict_pre_hooks.items()):  # torch forgets it: its own test fails
            if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
                del module._load_state_dict_pre_hooks[key]
    elif kind == "a pruning mask":
        prune.remove(module, leaf)  # type: ignore[no-untyped-call]
    else:
        take_own_class(module)
        parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)


def take_own_class(module: nn.Module) -> None:
    """Gives a parametrized module a class of its own, from which torch can delete the computed tensor.

    Copies of a module share the class that torch made for it; deleting from that would break all of them.
    """
    kind = type(module)
    content = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, content)
