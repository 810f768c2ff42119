"""Writes the function of load.py that builds the unmodified model, from the user's own function or method."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import Any

from torch import nn

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.plain.modules import tree_of
from toolkit.exporting.formats.plain.sources import Sources
from toolkit.zoo.build import build_zoo_model
from toolkit.zoo.code import building_code


def building_lines(build: Callable[[], nn.Module], sources: Sources) -> list[str]:
    """Returns the body of a function that does what `build` does; adds to `sources` what it needs.

    A function at the top level of a module is called. The statements of a method, a lambda or a nested function are
    copied, and values that these take from elsewhere are written in their places.

    Raises:
        ExportError: that cannot be written as code; the message says why not.
    """
    if isinstance(build, functools.partial):
        return [f"return {sources.call_of(build, 'build_model')}"]
    if isinstance(build, type):
        return [f"return {sources.expression(build, 'build_model')}()"]
    function: object = build.__func__ if isinstance(build, MethodType) else build
    if not isinstance(function, FunctionType):
        raise ExportError(f"build_model is a {type(build).__qualname__}, not a function")
    names: Mapping[str, Any] = function.__globals__
    name: str = function.__name__
    if not isinstance(build, MethodType) and names.get(name) is function:
        sources.take(name, names)
        return [f"return {name}()"]
    node = _node_of(function)
    values = dict(inspect.getclosurevars(function).nonlocals)
    owner = None
    if isinstance(build, MethodType) and not isinstance(node, ast.Lambda):
        owner = node.args.args[0].arg
        values[owner] = build.__self__
    statements = [ast.Return(node.body)] if isinstance(node, ast.Lambda) else _without_docstring(node.body)
    written = [ast.unparse(_Filled(sources, values, owner, names).visit(part)) for part in statements]
    lines = [line for text in written for line in text.splitlines()]
    sources.take_names_of("\n".join(["def build():", *(f"    {line}" for line in lines)]), names)
    return lines


def _node_of(function: FunctionType) -> ast.FunctionDef | ast.Lambda:
    """Returns the parsed source of a function.

    Raises:
        ExportError: it is not found, or there are several on its line.
    """
    line = function.__code__.co_firstlineno
    found: list[ast.FunctionDef | ast.Lambda] = []
    for node in ast.walk(tree_of(function.__globals__)):
        if isinstance(node, ast.Lambda) and function.__name__ == "<lambda>" and node.lineno == line:
            found.append(node)
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            lines = [node.lineno, *(part.lineno for part in node.decorator_list)]
            found += [node] if min(lines) == line else []
    if len(found) != 1:
        raise ExportError(f"the source of {function.__qualname__} is not found")
    return found[0]


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0]
    is_text = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return body[1:] if is_text else body


def zoo_call(name: str, arguments: Mapping[str, Any], sources: Sources) -> str:
    """Returns code that builds a model of a zoo with the zoo's own library.

    Raises:
        UserError: the model is not known, or its library is not installed.
    """
    imports, expression = building_code(name, arguments)
    for line in imports:
        sources.add_import(line)
    return expression


class _Filled(ast.NodeTransformer):
    """Writes values in the places of a function's free names, and of what it reads of `owner` (`self.config.width`).

    names: the globals of the function's module; a call of `build_zoo_model` becomes one of the zoo's own library.
    """

    def __init__(
        self, sources: Sources, values: Mapping[str, Any], owner: str | None, names: Mapping[str, Any]
    ) -> None:
        self.sources, self.values, self.owner, self.names = sources, values, owner, names

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not (isinstance(node.func, ast.Name) and self.names.get(node.func.id) is build_zoo_model):
            return self.generic_visit(node)
        try:
            given = [ast.literal_eval(self.visit(part)) for part in node.args]
            given += [ast.literal_eval(self.visit(part.value)) for part in node.keywords]
            names = ("name", "arguments", "most_bytes")[: len(node.args)] + tuple(
                str(part.arg) for part in node.keywords
            )
        except ValueError as error:
            raise ExportError(f"it calls {node.func.id} with values that are computed") from error
        call = dict(zip(names, given, strict=True))
        return ast.parse(zoo_call(call["name"], call.get("arguments") or {}, self.sources), mode="eval").body

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        parts: list[str] = []
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            parts.insert(0, root.attr)
            root = root.value
        if not (isinstance(root, ast.Name) and root.id == self.owner):
            return self.generic_visit(node)
        value = functools.reduce(getattr, parts, self.values[root.id])
        return self._code(value, ".".join(["self", *parts]))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id == self.owner:
            raise ExportError("it needs the task itself")
        return self._code(self.values[node.id], node.id) if node.id in self.values else node

    def _code(self, value: Any, what: str) -> ast.AST:
        return ast.parse(self.sources.expression(value, what), mode="eval").body
