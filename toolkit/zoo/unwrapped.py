"""Finds a model's weights in what people save: bare state dicts, whole checkpoints, names with a wrapper's prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from toolkit.base.errors import UserError
from toolkit.hooks.trial import described

# Prefixes that DataParallel, torch.compile and Lightning put before every name of the weights that they wrap.
PREFIXES = ("module.", "_orig_mod.", "model.")

INNER = ("._orig_mod.", ".module.")

COUNTERS = ("n_averaged",)  # beside the weights in an AveragedModel of torch

DEEPEST = 2  # levels of mappings around the weights, as in {"ema": {"state_dict": ...}}

Weights = dict[str, Tensor]


def unwrapped(content: Any, names: Mapping[str, Any], key: str | None = None) -> Weights:
    """Returns the weights of a model by the model's own names; the names may still differ from the model's.

    content: what the file holds.
    names: the names of the model's weights, as keys.
    key: the key of the weights in a checkpoint; None takes the only weights of which a name is in the model.

    Raises:
        UserError: there are no such weights, or several and `key` does not say which.
    """
    found = _found(content, "", DEEPEST)
    if key is not None:
        if key not in found:
            choices = ", ".join(filter(None, found)) or "none"
            raise UserError(f"holds no weights under the key {key!r}; the keys of weights in it are: {choices}")
        return _without_prefixes(found[key], names)
    plain = {place: _without_prefixes(weights, names) for place, weights in found.items()}
    fitting = {place: weights for place, weights in plain.items() if any(name in names for name in weights)}
    if len(fitting) > 1:
        raise UserError(
            f"holds several weights of this model, under {' and '.join(fitting)}; say with weights_key which to take"
        )
    if fitting or len(plain) == 1:
        return next(iter((fitting or plain).values()))
    inside = f", whose weights under {' and '.join(plain)} have no name of this model's" if plain else ""
    raise UserError(f"holds {described(content)}{inside}, not a state dict of this model; save model.state_dict()")


def _found(content: Any, place: str, depth: int) -> dict[str, Weights]:
    """Returns all mappings of tensors by their keys; that of the content itself has an empty key."""
    if not isinstance(content, Mapping) or {"state", "param_groups"} <= content.keys():  # the latter of an optimizer
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if content and len(tensors) == len(content):
        return {place: tensors}
    if not depth:
        return {}
    found: dict[str, Weights] = {}
    for name, value in content.items():
        found |= _found(value, f"{place}.{name}".removeprefix("."), depth - 1)
    return found


def _without_prefixes(weights: Weights, names: Mapping[str, Any]) -> Weights:
    """Returns the weights without the prefixes that all names share and that are not the model's own."""
    kept = {name: value for name, value in weights.items() if name in names or name not in COUNTERS}
    while kept and not any(name in names for name in kept):
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in kept)), None)
        if prefix is None:
            break
        kept = {name.removeprefix(prefix): value for name, value in kept.items()}
    for inner in INNER:  # of a part that was wrapped
        if not any(inner in name for name in names):
            kept = {name.replace(inner, "."): value for name, value in kept.items()}
    return kept
