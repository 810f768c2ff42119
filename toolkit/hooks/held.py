"""What modules hold beside parameters, buffers and modules: walked through, and put back after a look at the model."""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}  # tables of parameters, hooks and the like

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_PLAIN = (*_SCALARS, *_FUNCTIONS, type, range, Tensor, nn.Module)
_UNCHANGING = frozenset((*_SCALARS, *_FUNCTIONS))  # most attributes; one is looked up faster here than in _PLAIN


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Returns the attributes of a module that not every module has, without the mode."""
    return {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE and name != "training"}


def parts_of_value(value: object) -> list[Any]:
    """Returns what a container or a plain object holds; nothing of numbers, tensors, modules, functions and classes.

    An object that says on its own how to copy it, such as a logger, is no plain one.
    """
    if isinstance(value, _PLAIN):
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(vars(value).values()) if is_plain_object(value) else []


def is_plain_object(value: object) -> bool:
    """Says whether a value is an object of a class without special ways to be copied, which has attributes."""
    if isinstance(value, (*_PLAIN, Mapping, list, tuple, set, frozenset)) or not hasattr(value, "__dict__"):
        return False
    own = type(value)
    if own is types.SimpleNamespace:
        return True
    is_special = own.__reduce__ is not object.__reduce__ or own.__reduce_ex__ is not object.__reduce_ex__
    return not is_special and not hasattr(own, "__deepcopy__")


def values_held(module: nn.Module) -> Iterator[Any]:
    """Yields buffers and whatever the attributes and hooks of one module lead to, each object once.

    Modules that are reached on the way are yielded and not entered.
    """
    waiting = [value for name, value in vars(module).items() if name not in ("_parameters", "_modules")]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(parts_of_value(value))


@contextlib.contextmanager
def attributes_kept(*models: nn.Module) -> Iterator[None]:
    """Puts the attributes of all modules back: caches, kept results and counters of forward passes do not stay.

    Containers and plain objects that an attribute leads to get their former contents back too. Parameters, buffers,
    hooks and modes are not looked at.
    """
    modules = {id(module): module for model in models for module in model.modules()}
    before = [(module, dict(vars(module))) for module in modules.values()]
    contents: dict[int, tuple[Any, Any]] = {}
    for _, attributes in before:
        for name, value in attributes.items():
            if type(value) not in _UNCHANGING and name not in OF_EVERY_MODULE:
                _note_contents(value, contents)
    try:
        yield
    finally:
        for value, content in contents.values():
            _put_contents(value, content)
        for module, attributes in before:
            _put_attributes(module, attributes)


def _note_contents(value: Any, into: dict[int, tuple[Any, Any]]) -> None:
    if isinstance(value, _PLAIN) or id(value) in into:
        return
    if isinstance(value, dict | list | set):
        into[id(value)] = value, value.copy()
    elif type(value) is not tuple and is_plain_object(value):
        into[id(value)] = value, dict(vars(value))
    for part in value if type(value) is tuple else parts_of_value(value):
        if type(part) not in _UNCHANGING:
            _note_contents(part, into)


def _put_contents(value: Any, content: Any) -> None:
    if isinstance(value, list):
        if len(value) != len(content) or any(one is not other for one, other in zip(value, content, strict=True)):
            value[:] = content
    elif isinstance(value, set):
        if value != content:
            value.clear()
            value.update(content)
    else:
        _put_mapping(value if isinstance(value, dict) else vars(value), content)


def _put_mapping(now: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    """Compares by identity: what is in it may not be comparable."""
    if now.keys() != before.keys():
        for key in now.keys() - before.keys():
            del now[key]
    for key, value in before.items():
        if key not in now or now[key] is not value:
            now[key] = value


def _put_attributes(module: nn.Module, before: Mapping[str, Any]) -> None:
    now = vars(module)
    if now.keys() == before.keys() and all(map(operator.is_, now.values(), before.values())):
        return
    for name in own_attributes(module).keys() - before.keys():
        del now[name]
    for name in before.keys() - OF_EVERY_MODULE - {"training"}:
        if name not in now or now[name] is not before[name]:
            now[name] = before[name]
