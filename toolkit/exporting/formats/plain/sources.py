"""Gathers the source that a piece of code needs: copies what only the toolkit can import, and imports the rest."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import math
import symtable
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.plain.modules import Definition, binding_of, lines_of, module_of, stands_alone
from toolkit.zoo.build import build_zoo_model

Names = Mapping[str, Any]


class Sources:
    """Gathers imports and definitions, each before what needs it.

    imports: lines without duplicates, in the order in which they were needed.
    definitions: classes, functions and constants.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.imports: list[str] = []
        self.definitions: list[str] = []
        self._known: dict[str, Any] = {name: object() for name in reserved}

    def take(self, name: str, names: Names) -> None:
        """Makes a name mean what it does in a module with these globals.

        Raises:
            ExportError: that cannot be written as code; the message says why not.
        """
        if name not in names and not hasattr(builtins, name):
            return  # the code never got there
        if name not in names or self._has(name, names[name]):
            return
        value = self._known[name] = names[name]
        if value is build_zoo_model:
            raise ExportError(
                f"it calls this toolkit's {name}; call the library's own function, such as timm.create_model"
            )
        binding = None if isinstance(value, ModuleType) else binding_of(names, name)
        if isinstance(value, ModuleType):
            self._import_module(name, value)
        elif isinstance(binding, ast.ImportFrom):
            self._import_from(name, binding, names)
        elif isinstance(binding, Definition):
            self.add(lines_of(names, binding), names)
        elif is_plain(value):
            self.definitions.append(f"{name} = {value!r}")
        elif isinstance(binding, ast.Assign | ast.AnnAssign) and not _is_literal(binding.value):
            self.add(lines_of(names, binding), names)
        else:
            raise ExportError(f"{name} in {names.get('__name__')} is not defined by one statement that can be copied")

    def add(self, source: str, names: Names) -> None:
        """Adds a definition, and what it needs; `names` are the globals of its module.

        Raises:
            ExportError: as `take`.
        """
        self.take_names_of(source, names)
        self.definitions.append(source)

    def take_names_of(self, source: str, names: Names) -> None:
        """Takes all global names that a piece of source uses; those of annotations only where they can be imported.

        Raises:
            ExportError: as `take`.
        """
        for name in global_names(source):
            self.take(name, names)
        for name in annotation_names(source):
            value, module = names.get(name), getattr(names.get(name), "__module__", None)
            binding = binding_of(names, name) if name in names and name not in self._known else None
            if isinstance(binding, ast.ImportFrom) and stands_alone(module_of(binding, names)):
                self._known[name] = value
                self._import_from(name, binding, names)
            elif isinstance(value, ModuleType) and name not in self._known and module is None:
                self._known[name] = value
                self._import_module(name, value)

    def expression(self, value: Any, what: str) -> str:
        """Returns code whose value is `value`; `what` names it in messages.

        Raises:
            ExportError: there is no such code.
        """
        if is_plain(value):
            return repr(value)
        if isinstance(value, type | FunctionType) and "." not in value.__qualname__ and value.__name__ != "<lambda>":
            self.take(value.__name__, vars(sys.modules[value.__module__]))
            return value.__name__
        if isinstance(value, torch.dtype):
            self.add_import("import torch")
            return repr(value)
        if isinstance(value, functools.partial):
            self.add_import("import functools")
            return f"functools.partial({', '.join([self.expression(value.func, what), *self._call(value, what)])})"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {
                field.name: getattr(value, field.name) for field in dataclasses.fields(value) if _is_given(field, value)
            }
            given = [f"{name}={self.expression(part, f'{what}.{name}')}" for name, part in fields.items()]
            return f"{self.expression(type(value), what)}({', '.join(given)})"
        if type(value) in (list, tuple) and value:
            parts = [self.expression(part, f"{what}[{at}]") for at, part in enumerate(value)]
            return f"[{', '.join(parts)}]" if isinstance(value, list) else f"({', '.join(parts)},)"
        if isinstance(value, type | FunctionType):
            raise ExportError(f"{what} is {value.__qualname__}, which is not at the top level of its file")
        raise ExportError(f"{what} is a {type(value).__qualname__}, which cannot be written as code")

    def _call(self, call: functools.partial[Any], what: str) -> Iterator[str]:
        yield from (self.expression(part, what) for part in call.args)
        yield from (f"{name}={self.expression(part, f'{what}.{name}')}" for name, part in call.keywords.items())

    def call_of(self, value: functools.partial[Any], what: str) -> str:
        """Returns code that calls a function with the arguments of a `functools.partial`.

        Raises:
            ExportError: as `expression`.
        """
        return f"{self.expression(value.func, what)}({', '.join(self._call(value, what))})"

    def add_import(self, line: str) -> None:
        """Adds an import unless it is there."""
        if line not in self.imports:
            self.imports.append(line)

    def _has(self, name: str, value: Any) -> bool:
        if name in self._known and self._known[name] is not value:
            raise ExportError(f"two things that it needs are both called {name}; rename yours")
        return name in self._known

    def _import_module(self, name: str, module: ModuleType) -> None:
        if not stands_alone(module.__name__):
            raise ExportError(f"it uses the module {module.__name__}, which needs this toolkit")
        parent, _, leaf = module.__name__.rpartition(".")
        if name == module.__name__.partition(".")[0]:
            self.add_import(f"import {module.__name__}")
        elif parent and leaf == name:
            self.add_import(f"from {parent} import {name}")
        else:
            self.add_import(f"import {module.__name__} as {name}")

    def _import_from(self, name: str, statement: ast.ImportFrom, names: Names) -> None:
        module = module_of(statement, names)
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        if stands_alone(module):
            self.add_import(f"from {module} import {original}" + ("" if original == name else f" as {name}"))
            return
        if original == name:
            del self._known[name]
        self.take(original, vars(sys.modules[module]))
        if original != name:
            self.definitions.append(f"{name} = {original}")


def _is_given(field: dataclasses.Field[Any], value: Any) -> bool:
    """Returns whether a field of a dataclass must be written; its default need not be."""
    return field.init and not (is_plain(field.default) and field.default == getattr(value, field.name))


def _is_literal(node: ast.expr | None) -> bool:
    """Returns whether a value is written out; one that is not plain now was changed by a later statement."""
    try:
        ast.literal_eval(node or ast.Constant(None))
    except ValueError:
        return False
    return True


def is_plain(value: Any) -> bool:
    """Returns whether `repr` writes a value as code: numbers, text, None, and containers of them."""
    if isinstance(value, float) and type(value) is float:
        return math.isfinite(value)
    if type(value) in (bool, int, str, bytes, type(None)):
        return True
    if type(value) in (list, tuple, set, frozenset):
        return all(map(is_plain, value))
    return type(value) is dict and all(map(is_plain, (*value, *value.values())))


def global_names(source: str) -> list[str]:
    """Returns the global names that source uses when it runs, in alphabetical order; not those of its annotations."""
    return sorted(set(_used(symtable.symtable(f"from __future__ import annotations\n{source}", "source", "exec"))))


def _used(table: symtable.SymbolTable) -> Iterator[str]:
    is_module = table.get_type() == "module"
    for symbol in table.get_symbols():
        is_own = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace()
        if symbol.is_referenced() and (not is_own if is_module else symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _used(child)


def annotation_names(source: str) -> list[str]:
    """Returns the names in the annotations of source, in alphabetical order."""
    hints = []
    for node in ast.walk(ast.parse(source)):
        hints += [getattr(node, key, None) for key in ("annotation", "returns")]
    parts = (part for hint in hints if isinstance(hint, ast.AST) for part in ast.walk(hint))
    return sorted({part.id for part in parts if isinstance(part, ast.Name)})
