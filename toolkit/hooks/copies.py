"""Copies models: the only place that does. What cannot be copied is refused with its module and attribute."""

from __future__ import annotations

import copy
import types
import weakref
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.hooks.held import is_plain_object, parts_of_value, values_held

ModuleT = TypeVar("ModuleT", bound=nn.Module)

Memo = dict[int, Any]  # what an object was copied to, by its id


def copy_model(model: ModuleT) -> ModuleT:
    """Returns a copy that shares nothing with the model: its hooks, functions and weak references lead to the copy.

    Tensors that modules keep from a forward pass are copied without their graph. Files, locks and the like that a hook
    reaches from outside of the model are shared.

    Raises:
        UserError: something that a module holds cannot be copied, or makes no real copy of itself.
    """
    memo: Memo = {}
    with torch.inference_mode(False), torch.no_grad():
        for module in model.modules():
            _prepare(module, memo)
        prepared = dict(memo)
        try:
            copied = copy.deepcopy(model, memo)
            _lead_to_copy(model, memo)
        except Exception as error:  # deepcopy runs code of every object that it meets
            raise UserError(f"{_culprit(model, prepared)}: {_short(error)}") from error
    _check_apart(model, copied)
    return copied


def _prepare(module: nn.Module, memo: Memo) -> None:
    """Notes copies of what deepcopy refuses or would copy with a history."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_inference():
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
    for value in values_held(module):
        if isinstance(value, Tensor) and (value.grad_fn is not None or value.is_inference() or value.is_quantized):
            memo[id(value)] = value.detach().clone()


def _lead_to_copy(model: nn.Module, memo: Memo) -> None:
    """Functions and weak references are the same objects in a copy; those that lead into the model are made anew."""
    for module in list(model.modules()):
        new = memo.get(id(module))
        if new is not None:
            values = {name: value for name, value in vars(new).items() if name not in ("_parameters", "_modules")}
            for name, value in values.items():
                led = _led(value, memo, set())
                if led is not value:
                    new.__dict__[name] = led


def _led(value: Any, memo: Memo, seen: set[int]) -> Any:
    """The value with everything in it that leads to the model led to the copy; containers are changed in place."""
    if isinstance(value, types.FunctionType):
        return _function(value, memo) if _reaches(value, memo, set()) else value
    if isinstance(value, weakref.ref):
        return weakref.ref(memo[id(value())]) if id(value()) in memo else value
    if isinstance(value, partial):
        return _led_partial(value, memo, seen) if _reaches(value, memo, set()) else value
    if isinstance(value, tuple) and type(value) is tuple:
        parts = tuple(_led(part, memo, seen) for part in value)
        return parts if any(one is not other for one, other in zip(parts, value, strict=True)) else value
    if id(value) in seen or isinstance(value, nn.Module):
        return value
    seen.add(id(value))
    table: Any = value if isinstance(value, dict | list) else None
    if table is None and is_plain_object(value):
        table = vars(value)
    for key in list(table) if isinstance(table, dict) else range(len(table or ())):
        led = _led(table[key], memo, seen)
        if led is not table[key]:
            table[key] = led
    return value


def _led_partial(value: partial[Any], memo: Memo, seen: set[int]) -> partial[Any]:
    args = [_led(part, memo, seen) for part in value.args]
    named = {name: _led(part, memo, seen) for name, part in value.keywords.items()}
    return partial(_led(value.func, memo, seen), *args, **named)


def _reaches(value: Any, memo: Memo, seen: set[int]) -> bool:
    """Says whether a value leads to something of the model."""
    if id(value) in memo and memo[id(value)] is not value:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_reaches(part, memo, seen) for part in _led_to(value))


def _led_to(value: Any) -> list[Any]:
    """What a function, a method, a reference, a container or a plain object leads to."""
    if isinstance(value, types.FunctionType):
        return _bound_to(value)
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    return parts_of_value(value)


def _bound_to(function: types.FunctionType) -> list[Any]:
    """What a function holds: variables of the functions around it, and defaults of its parameters."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty cell has no other sign
    except ValueError:
        return False
    return True


def _function(function: types.FunctionType, memo: Memo) -> types.FunctionType:
    """A function of the same code, bound to copies of whatever the given one is bound to that leads to the model."""
    if id(function) in memo:
        made: types.FunctionType = memo[id(function)]
        return made
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells or None)
    memo[id(function)] = new  # before its cells: a function may be bound to itself
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        if _is_full(old):
            cell.cell_contents = _bound(old.cell_contents, memo)
    new.__defaults__ = tuple(_bound(value, memo) for value in function.__defaults__ or ()) or None
    new.__kwdefaults__ = {name: _bound(value, memo) for name, value in (function.__kwdefaults__ or {}).items()} or None
    new.__dict__.update(function.__dict__)
    return new


def _bound(value: Any, memo: Memo) -> Any:
    if not _reaches(value, memo, set()):
        return value
    return _led(copy.deepcopy(value, memo), memo, set())


def _culprit(model: nn.Module, memo: Memo) -> str:
    """Names the first attribute that cannot be copied on its own."""
    known: Memo = {id(module): module for module in model.modules()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value, {**memo, **known})
            except Exception:
                place = f"{name}.{attribute}" if name else attribute
                return (
                    f"{place} ({_what(value)}) cannot be copied, and every stage works on copies of the model; make it "
                    "when it is needed, or leave it out of the copy (__getstate__ of its class)"
                )
    return "the model cannot be copied, and every stage works on copies of it"


def _what(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def _check_apart(model: nn.Module, copied: nn.Module) -> None:
    own = {id(part) for part in (*model.parameters(), *model.modules())}
    for name, module in copied.named_modules():
        if id(module) in own or any(id(part) in own for part in module.parameters(recurse=False)):
            raise UserError(
                f"{name or 'the model'} ({type(module).__name__}) makes no real copy of itself (its __deepcopy__?): "
                "a change of the copy would change the model"
            )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
