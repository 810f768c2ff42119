"""Reads the source of modules: where a name comes from, and whether a module can be imported without the toolkit."""

from __future__ import annotations

import ast
import importlib.util
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from toolkit.base.errors import ExportError

_OURS = (__name__.partition(".")[0], "reports")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def stands_alone(name: str) -> bool:
    """Returns whether a program without the toolkit can import a module, as far as its imports tell.

    The toolkit's own modules cannot be imported there, nor user's modules that import it. The file of a task and the
    main program have no name to import them by.
    """
    return _stands_alone(name, frozenset())


def _stands_alone(name: str, visited: frozenset[str]) -> bool:
    if name.partition(".")[0] in _OURS:
        return False
    module = sys.modules.get(name)
    if name in visited or module is None or _is_installed(module):
        return True
    if (
        name == "__main__" or getattr(module, "__spec__", None) is None
    ):  # run from a file, and never imported by its name
        return False
    if not str(getattr(module, "__file__", None)).endswith(".py"):
        return True
    imported = (each for node in ast.walk(_tree(module.__file__)) for each in _imported_by(node, vars(module)))
    return all(_stands_alone(each, visited | {name}) for each in imported)


def _is_installed(module: ModuleType) -> bool:
    top = module.__name__.partition(".")[0]
    parts = Path(getattr(module, "__file__", None) or "built-in").parts
    return top in sys.stdlib_module_names or "site-packages" in parts or parts == ("built-in",)


def _imported_by(node: ast.AST, names: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = module_of(node, names)
        yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


def module_of(node: ast.ImportFrom, names: Mapping[str, Any]) -> str:
    """Returns the full name of the module that a statement imports from; `names` are the globals of its own module."""
    relative = "." * node.level + (node.module or "")
    return importlib.util.resolve_name(relative, names.get("__package__") or "") if node.level else relative


def tree_of(names: Mapping[str, Any]) -> ast.Module:
    """Returns the parsed source of the module with these globals.

    Raises:
        ExportError: there is no file of its source.
    """
    file = names.get("__file__")
    if not file or not Path(file).is_file():
        raise ExportError(f"the source of {names.get('__name__')} is in no file")
    return _tree(file)


def lines_of(names: Mapping[str, Any], node: ast.stmt) -> str:
    """Returns the source of a statement of the module with these globals, decorators included, not indented."""
    decorators = node.decorator_list if isinstance(node, Definition) else []
    first = min([node.lineno, *(part.lineno for part in decorators)])
    lines = _source(names["__file__"]).splitlines()[first - 1 : node.end_lineno]
    return textwrap.dedent("\n".join(lines))


def binding_of(names: Mapping[str, Any], name: str) -> ast.stmt | None:
    """Returns the last statement outside of functions and classes that gives a name its value; None if there is none.

    names: the globals of the module that has the statement.
    """
    found = None
    for node in _statements(tree_of(names)):
        if name in _bound_by(node):
            found = node
    return found


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, Definition | ast.expr):
            yield from _statements(child)


def _bound_by(node: ast.stmt) -> list[str]:
    if isinstance(node, Definition):
        return [node.name]
    if isinstance(node, ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    parts = (part for target in targets for part in ast.walk(target))
    return [part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)]


def _tree(file: Any) -> ast.Module:
    return ast.parse(_source(file))


def _source(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")
