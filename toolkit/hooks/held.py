"""Walks through what modules hold beside parameters, buffers and modules, and restores it after a forward pass."""

from __future__ import annotations

import contextlib
import operator
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.tensors import put_values

OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}  # tables of parameters, hooks and the like

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_PLAIN = (*_SCALARS, *_FUNCTIONS, type, range, Tensor, nn.Module)
_UNCHANGING = frozenset((*_SCALARS, *_FUNCTIONS))  # most attributes; one is looked up faster here than in _PLAIN


PlainValues = Mapping[str, Mapping[str, Any]]  # by the name of the module and that of the attribute


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """Returns the attributes of a module that plain `nn.Module` objects do not have."""
    return {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE and name != "training"}


def parts_of_value(value: object) -> list[Any]:
    """Returns what a container or a plain object holds, and an empty list for any other value.

    An object with its own way to be copied, such as a logger, is not plain.
    """
    if isinstance(value, _PLAIN):
        return []
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(vars(value).values()) if is_plain_object(value) else []


def is_plain_object(value: object) -> bool:
    """Says whether a value has attributes and is of a class without its own way to be copied."""
    if isinstance(value, (*_PLAIN, Mapping, list, tuple, set, frozenset)) or not hasattr(value, "__dict__"):
        return False
    cls = type(value)
    if cls is types.SimpleNamespace:
        return True
    is_special = cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__
    return not is_special and not hasattr(cls, "__deepcopy__")


def values_held(module: nn.Module) -> Iterator[Any]:
    """Yields the buffers of one module and whatever its attributes and hooks refer to, each object once.

    Other modules are yielded too, but what they hold is not.
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
    """Restores the attributes of all modules when the `with` ends, so that caches and counters do not stay.

    Containers, plain objects and tensors that an attribute refers to get their former contents back. Parameters,
    buffers, hooks and modes are not restored.
    """
    modules = {id(module): module for model in models for module in model.modules()}
    saved = [(module, dict(vars(module))) for module in modules.values()]
    contents: dict[int, tuple[Any, Any]] = {}
    for _, attributes in saved:
        for name, value in attributes.items():
            if type(value) not in _UNCHANGING and name not in OF_EVERY_MODULE:
                _note_contents(value, contents)
    try:
        yield
    finally:
        for value, content in contents.values():
            _put_contents(value, content)
        for module, attributes in saved:
            _put_attributes(module, attributes)


def plain_values(model: nn.Module) -> PlainValues:
    """Returns the numbers, words and tensors in the attributes of all modules; tensors are copied."""
    return {
        name: {
            attribute: value.detach().clone() if isinstance(value, Tensor) else value
            for attribute, value in own_attributes(module).items()
            if isinstance(value, (*_SCALARS, Tensor))
        }
        for name, module in model.named_modules()
    }


def put_plain_values(model: nn.Module, values: PlainValues) -> None:
    """Puts what `plain_values` gave back into the modules that have the same names."""
    for name, module in model.named_modules():
        vars(module).update(values.get(name, {}))


def _note_contents(value: Any, into: dict[int, tuple[Any, Any]]) -> None:
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and _may_be_state(value):
        into[id(value)] = value, value.detach().clone()
    if isinstance(value, _PLAIN) or id(value) in into:
        return
    if isinstance(value, dict | list | set):
        into[id(value)] = value, value.copy()
    elif type(value) is not tuple and is_plain_object(value):
        into[id(value)] = value, dict(vars(value))
    for part in value if type(value) is tuple else parts_of_value(value):
        if type(part) not in _UNCHANGING:
            _note_contents(part, into)


def _may_be_state(tensor: Tensor) -> bool:
    """Says whether forward code may go on writing into a tensor; one with a graph is the result of a pass."""
    return tensor.grad_fn is None and tensor.layout == torch.strided and not tensor.is_quantized


def _put_contents(value: Any, content: Any) -> None:
    if isinstance(value, Tensor):
        put_values(value, content)
    elif isinstance(value, list):
        if len(value) != len(content) or any(one is not other for one, other in zip(value, content, strict=True)):
            value[:] = content
    elif isinstance(value, set):
        if value != content:
            value.clear()
            value.update(content)
    else:
        _put_mapping(value if isinstance(value, dict) else vars(value), content)


def _put_mapping(mapping: dict[Any, Any], content: Mapping[Any, Any]) -> None:
    """Restores a mapping. Values are compared by identity, because they may not define equality."""
    if mapping.keys() != content.keys():
        for key in mapping.keys() - content.keys():
            del mapping[key]
    for key, value in content.items():
        if key not in mapping or mapping[key] is not value:
            mapping[key] = value


def _put_attributes(module: nn.Module, saved: Mapping[str, Any]) -> None:
    current = vars(module)
    if current.keys() == saved.keys() and all(map(operator.is_, current.values(), saved.values())):
        return
    for name in own_attributes(module).keys() - saved.keys():
        del current[name]
    for name in saved.keys() - OF_EVERY_MODULE - {"training"}:
        if name not in current or current[name] is not saved[name]:
            current[name] = saved[name]
