"""Recognises trained weights that are no bare state dict, and says what to pass instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.trial import described

MOST_NAMES = 3

# The prefixes that wrappers add to the names of the weights that they wrap.
_WRAPPERS = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module.": "checkpoint_wrapper",
}

_AVERAGED = re.compile(r"ema|averaged|swa", re.IGNORECASE)


def plain_weights(given: Any, expected: Mapping[str, Any], what: str = "trained") -> dict[str, Tensor]:
    """Returns the tensors by name if they fit a model.

    given: the object that the user passed.
    expected: the state dict of the model.
    what: the name of `given` in messages, a Python expression.

    Raises:
        UserError: `given` is no bare state dict, or belongs to another model. The message says what to pass instead.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{what} is {described(given)}; {_instead_of_no_mapping(given, what)}")
    _refuse_checkpoint(given, expected, what)
    others = [str(name) for name, value in given.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(_no_tensors(given, others, expected, what))
    weights = {str(name): value for name, value in given.items()}
    _refuse_prefix(weights, expected, what)
    faults = misfits({name: tuple(value.shape) for name, value in weights.items()}, expected)
    if faults:
        raise UserError(f"the weights do not fit what build_model builds: {faults}")
    for name, value in weights.items():
        if (
            value.is_floating_point() != expected[name].is_floating_point()
            or value.is_complex() != expected[name].is_complex()
        ):
            kinds = [str(part.dtype).removeprefix("torch.") for part in (value, expected[name])]
            raise UserError(f"the weights do not fit what build_model builds: {name} is {kinds[0]}, not {kinds[1]}")
    return weights


def misfits(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Any]) -> str:
    """Returns in words how names and shapes differ from those of the state dict `expected`; empty if in nothing."""
    tensors = {name: tuple(value.shape) for name, value in expected.items() if isinstance(value, Tensor)}
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    unlike = [
        f"{name} ({list(shapes[name])}, not {list(shape)})"
        for name, shape in tensors.items()
        if name in shapes and shapes[name] != shape
    ]
    parts = (
        (missing, "missing"),
        (unknown, "not in the model"),
        (unlike, "of another shape"),
    )
    return "; ".join(f"{len(names)} of {len(expected)} {words}: {few(names)}" for names, words in parts if names)


def few(names: Sequence[str]) -> str:
    """Returns at most three of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{', '.join(names[:MOST_NAMES])}{more}"


def _instead_of_no_mapping(given: Any, what: str) -> str:
    if isinstance(given, (str, PurePath)):
        return f'load the file: torch.load({str(given)!r}, map_location="cpu", weights_only=True)'
    if isinstance(given, type) and issubclass(given, nn.Module):
        return "give the trained module itself, not its class"
    if callable(given):
        return "give what it returns: a trained module, or its state_dict()"
    return f"{what} must be a trained torch.nn.Module or its state_dict()"


def _refuse_checkpoint(given: Mapping[Any, Any], expected: Mapping[str, Any], what: str) -> None:
    """Raises UserError if the weights are one level deeper, or if there are none."""
    inside = [name for name, value in given.items() if isinstance(value, nn.Module) or _is_state_dict(value)]
    if inside and not any(name in expected for name in given):
        best = max(
            inside, key=lambda name: _num_common(given[name], expected)
        )  # the first of those that fit equally well
        averaged = [name for name in inside if name != best and _AVERAGED.search(str(name))]
        more = f" (there are averaged weights too: {what}[{averaged[0]!r}])" if averaged else ""
        kind = "a module" if isinstance(given[best], nn.Module) else "weights"
        raise UserError(
            f"{what} is a whole checkpoint, with the keys {few([str(name) for name in given])}; its trained model is "
            f"{kind} under {best!r}: pass {what}[{best!r}]{more}"
        )
    if {"state", "param_groups"} <= given.keys():
        raise UserError(f"{what} is the state of an optimizer and holds no model; pass the model's state_dict()")
    if not given:
        raise UserError(f"{what} is an empty {type(given).__name__}; pass the model's state_dict()")


def _is_state_dict(value: Any) -> bool:
    """Says whether most values of a mapping are tensors under text keys.

    The keys in the state of an optimizer are numbers.
    """
    if not isinstance(value, Mapping) or not value or {"state", "param_groups"} <= value.keys():
        return False
    return sum(isinstance(name, str) and hasattr(part, "shape") for name, part in value.items()) * 2 > len(value)


def _num_common(value: Any, expected: Mapping[str, Any]) -> int:
    names = value.state_dict() if isinstance(value, nn.Module) else value
    num_common = sum(_without_wrappers(str(name)) in expected for name in names)
    return 2 * num_common + 1 if isinstance(value, nn.Module) else 2 * num_common


def _no_tensors(given: Mapping[Any, Any], others: Sequence[str], expected: Mapping[str, Any], what: str) -> str:
    values = [given[name] for name in given if str(name) in others]
    if all(hasattr(value, "__array_interface__") for value in values):
        return (
            f"{what} holds numpy arrays ({few(others)}): pass "
            f"{{name: torch.from_numpy(array) for name, array in {what}.items()}}"
        )
    extra_states = [name for name in others if name.endswith("_extra_state")]
    if extra_states and len(extra_states) == len(others):
        if all(name not in expected for name in extra_states):
            return (
                f"{what} holds state that is not a tensor and that the model does not have ({few(extra_states)}): "
                "pass it without the names that end in _extra_state"
            )
        return (
            f"{what} holds state that is not a tensor ({few(extra_states)}); the toolkit saves only tensors: keep that "
            "state in a buffer instead of get_extra_state"
        )
    kinds = sorted({type(value).__name__ for value in values})
    return f"{what} holds values that are not tensors ({few(others)}: {few(kinds)}); pass the model's state_dict()"


def _without_wrappers(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(f".{wrapper}", ".").removeprefix(wrapper)
    return name


def _refuse_prefix(weights: Mapping[str, Tensor], expected: Mapping[str, Any], what: str) -> None:
    """Raises UserError if the names would be the model's after a wrapper's prefix is removed."""
    if any(name in expected for name in weights):
        inner = [wrapper for wrapper in _WRAPPERS if any(f".{wrapper}" in name for name in weights)]
        if not inner or any(f".{inner[0]}" in name for name in expected):
            return
    else:
        inner = []
    fitting = sum(_without_wrappers(name) in expected for name in weights)
    for wrapper, origin in _WRAPPERS.items():
        if (fitting or wrapper in ("module.", "_orig_mod.")) and all(name.startswith(wrapper) for name in weights):
            raise UserError(
                f"all names of {what} begin with {wrapper!r}, as {origin} saves them: pass "
                f"{{name.removeprefix({wrapper!r}): value for name, value in {what}.items()}}"
            )
        if fitting and any(wrapper in name for name in weights):
            raise UserError(
                f"names of {what} hold {wrapper!r}, which {origin} puts there: pass "
                f"{{name.replace({wrapper!r}, ''): value for name, value in {what}.items()}}"
            )
    _refuse_place(weights, expected, what)


def _refuse_place(weights: Mapping[str, Tensor], expected: Mapping[str, Any], what: str) -> None:
    """Raises UserError if the weights are those of a larger module that holds the model, or of a part of the model."""
    first_expected, first_given = next(iter(expected), ""), next(iter(weights))
    for name in weights:
        place = name.removesuffix(first_expected)
        if name != place and place.endswith(".") and all(f"{place}{other}" in weights for other in expected):
            raise UserError(
                f"the model's weights are those of {what} whose names begin with {place!r}: pass {{name.removeprefix"
                f"({place!r}): value for name, value in {what}.items() if name.startswith({place!r})}}"
            )
    for name in expected:
        place = name.removesuffix(first_given)
        if name != place and place.endswith(".") and all(f"{place}{other}" in expected for other in weights):
            raise UserError(
                f"the weights do not fit what build_model builds: {what} holds those of its part {place[:-1]!r} alone; "
                "load them there, and give the whole model"
            )
