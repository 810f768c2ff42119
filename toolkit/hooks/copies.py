"""Copies models, for the whole package, and refuses what cannot be copied with the name of its module and attribute."""

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

Memo = dict[int, Any]  # the copy of an object, by the id of the object


def copy_model(model: ModuleT) -> ModuleT:
    """Returns a copy that shares nothing with the model: its hooks, functions and weak references refer to the copy.

    Tensors that modules keep from a forward pass are copied without their autograd graph. Files, locks and similar
    objects that a hook reaches outside of the model stay shared.

    Raises:
        UserError: a module holds something that cannot be copied, or its copy is not a separate object.
    """
    memo: Memo = {}
    with torch.inference_mode(False), torch.no_grad():
        for module in model.modules():
            _prepare(module, memo)
        prepared = dict(memo)
        try:
            copied = copy.deepcopy(model, memo)
            _redirect_to_copy(model, memo)
        except Exception as error:  # deepcopy runs code of every object that it meets
            raise UserError(f"{_culprit(model, prepared)}: {_short(error)}") from error
    _check_apart(model, copied)
    return copied


def _prepare(module: nn.Module, memo: Memo) -> None:
    """Puts copies into `memo` of the tensors that deepcopy refuses or would copy together with their autograd graph."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_inference():
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
    for value in values_held(module):
        if isinstance(value, Tensor) and (value.grad_fn is not None or value.is_inference() or value.is_quantized):
            memo[id(value)] = value.detach().clone()


def _redirect_to_copy(model: nn.Module, memo: Memo) -> None:
    """Replaces, in the copy, functions and weak references that refer to the model by ones that refer to the copy.

    deepcopy keeps both as they are.
    """
    for module in list(model.modules()):
        copied = memo.get(id(module))
        if copied is not None:
            values = {name: value for name, value in vars(copied).items() if name not in ("_parameters", "_modules")}
            for name, value in values.items():
                redirected = _redirected(value, memo, set())
                if redirected is not value:
                    copied.__dict__[name] = redirected


def _redirected(value: Any, memo: Memo, seen: set[int]) -> Any:
    """Returns the value with all references to the model led to the copy; containers are changed in place."""
    if isinstance(value, types.FunctionType):
        return _rebound_function(value, memo) if _reaches(value, memo, set()) else value
    if isinstance(value, weakref.ref):
        return weakref.ref(memo[id(value())]) if id(value()) in memo else value
    if isinstance(value, partial):
        return _redirected_partial(value, memo, seen) if _reaches(value, memo, set()) else value
    if isinstance(value, tuple) and type(value) is tuple:
        parts = tuple(_redirected(part, memo, seen) for part in value)
        return parts if any(new is not old for new, old in zip(parts, value, strict=True)) else value
    if id(value) in seen or isinstance(value, nn.Module):
        return value
    seen.add(id(value))
    entries: Any = value if isinstance(value, dict | list) else None
    if entries is None and is_plain_object(value):
        entries = vars(value)
    for key in list(entries) if isinstance(entries, dict) else range(len(entries or ())):
        redirected = _redirected(entries[key], memo, seen)
        if redirected is not entries[key]:
            entries[key] = redirected
    return value


def _redirected_partial(value: partial[Any], memo: Memo, seen: set[int]) -> partial[Any]:
    args = [_redirected(part, memo, seen) for part in value.args]
    named = {name: _redirected(part, memo, seen) for name, part in value.keywords.items()}
    return partial(_redirected(value.func, memo, seen), *args, **named)


def _reaches(value: Any, memo: Memo, seen: set[int]) -> bool:
    """Says whether a value refers to an object of the model, directly or through other objects."""
    if id(value) in memo and memo[id(value)] is not value:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_reaches(part, memo, seen) for part in _referents(value))


def _referents(value: Any) -> list[Any]:
    """Returns the objects that a function, method, weak reference, container or plain object refers to."""
    if isinstance(value, types.FunctionType):
        return _bound_values(value)
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, partial):
        return [value.func, *value.args, *value.keywords.values()]
    return parts_of_value(value)


def _bound_values(function: types.FunctionType) -> list[Any]:
    """Returns the values that a function holds: variables of enclosing functions, and defaults of its parameters."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
    return [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _is_full(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # raises ValueError if the cell is empty
    except ValueError:
        return False
    return True


def _rebound_function(function: types.FunctionType, memo: Memo) -> types.FunctionType:
    """Returns a function of the same code, bound to copies instead of objects of the model.

    Values that do not refer to the model are shared with the given function.
    """
    if id(function) in memo:
        rebound: types.FunctionType = memo[id(function)]
        return rebound
    cells = tuple(types.CellType() for _ in function.__closure__ or ())
    new = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, cells or None)
    memo[id(function)] = new  # noted before its cells are filled, because a function may refer to itself
    for cell, old in zip(cells, function.__closure__ or (), strict=True):
        if _is_full(old):
            cell.cell_contents = _redirected_copy(old.cell_contents, memo)
    new.__defaults__ = tuple(_redirected_copy(value, memo) for value in function.__defaults__ or ()) or None
    new.__kwdefaults__ = {
        name: _redirected_copy(value, memo) for name, value in (function.__kwdefaults__ or {}).items()
    } or None
    new.__dict__.update(function.__dict__)
    return new


def _redirected_copy(value: Any, memo: Memo) -> Any:
    if not _reaches(value, memo, set()):
        return value
    return _redirected(copy.deepcopy(value, memo), memo, set())


def _culprit(model: nn.Module, memo: Memo) -> str:
    """Returns a sentence that names the first attribute that cannot be copied on its own."""
    originals: Memo = {id(module): module for module in model.modules()}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_modules":
                continue
            try:
                copy.deepcopy(value, {**memo, **originals})
            except Exception:
                place = f"{name}.{attribute}" if name else attribute
                return (
                    f"{place} ({_what(value)}) cannot be copied, and every stage works on copies of the model; create "
                    "it where it is used, or leave it out of the copy with __getstate__ of its class"
                )
    for name, module in model.named_modules():
        if hasattr(type(module), "__deepcopy__"):
            return (
                f"{name or 'the model'} ({type(module).__name__}) cannot be copied, and every stage works on copies of "
                "the model; check __deepcopy__ of its class, which must copy narrower layers too"
            )
    return "the model cannot be copied, and every stage works on copies of it"


def _what(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def _check_apart(model: nn.Module, copied: nn.Module) -> None:
    originals = {id(part) for part in (*model.parameters(), *model.modules())}
    for name, module in copied.named_modules():
        if id(module) in originals or any(id(part) in originals for part in module.parameters(recurse=False)):
            raise UserError(
                f"{name or 'the model'} ({type(module).__name__}) makes no real copy of itself: a change of the "
                "copy would change the model; check __deepcopy__ of its class"
            )
    copies = dict(copied.named_modules())
    for name, module in model.named_modules():
        lost = _lost(module, copies.get(name))
        if lost:
            raise UserError(
                f"{name or 'the model'} ({type(module).__name__}) does not copy {lost}, and every stage works on "
                "copies of the model; check __deepcopy__ of its class, or of the module around it"
            )


def _lost(module: nn.Module, copied: nn.Module | None) -> str:
    """Returns in words what the copy of a module lacks."""
    if copied is None:
        return "itself"
    flags = [
        {name: part.requires_grad for name, part in each.named_parameters(recurse=False)} for each in (module, copied)
    ]
    if flags[0].keys() != flags[1].keys():
        return "its parameters"
    if flags[0] != flags[1]:
        return "which of its parameters are frozen (requires_grad)"
    hooks = [len(each._forward_hooks) + len(each._forward_pre_hooks) for each in (module, copied)]
    return "its hooks" if hooks[0] != hooks[1] else ""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
