"""Reads the source of `toolkit` and `reports` once, so that rules about the code are functions of parsed modules."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False)
class Module:
    """One file of source. Two modules are equal only if they are the same, so that facts of a module can be cached.

    name: the dotted name, without `__init__`.
    is_package: whether the file is an `__init__.py`.
    """

    name: str
    is_package: bool
    num_lines: int
    tree: ast.Module


Modules = Mapping[str, Module]


def parse(name: str, source: str, *, is_package: bool = False) -> Module:
    return Module(name, is_package, len(source.splitlines()), ast.parse(source))


def read_modules() -> dict[str, Module]:
    """Returns all modules of both packages, by name."""
    modules = {}
    for path in sorted([*(ROOT / "toolkit").rglob("*.py"), *(ROOT / "reports").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = parse(name, path.read_text(encoding="utf-8"), is_package=is_package)
    return modules


@cache
def nodes(module: Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(module.tree))


@cache
def imported(module: Module) -> set[str]:
    """Returns the full names of all that a module imports; imports for type checkers count too."""
    return imported_by(module, nodes(module))


def imported_by(module: Module, parts: Iterable[ast.AST]) -> set[str]:
    """Returns the full names of all that some nodes of a module import."""
    names: set[str] = set()
    for node in parts:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            names |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return names


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    base = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*base, *([node.module] if node.module else [])])


def own_imports(module: Module, modules: Modules) -> set[str]:
    """Returns the modules of ours that a module imports, without itself.

    A name that is imported from a package stands for its own module if there is one, else for the package.
    """
    found = set()
    for name in imported(module):
        if is_ours(name):
            parts = name.split(".")
            prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
            found.add(next((prefix for prefix in prefixes if prefix in modules), name))
    return found - {module.name}


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in ("toolkit", "reports")


def top(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


@cache
def functions(module: Module) -> tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]:
    return tuple(node for node in nodes(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def attributes(module: Module) -> tuple[ast.Attribute, ...]:
    return tuple(node for node in nodes(module) if isinstance(node, ast.Attribute))


@cache
def classes(module: Module) -> tuple[str, ...]:
    return tuple(node.name for node in nodes(module) if isinstance(node, ast.ClassDef))


@cache
def used_names(module: Module) -> set[str]:
    """Returns every name that a module reads, imports, or takes as an attribute."""
    names = {alias.name for node in nodes(module) if isinstance(node, ast.ImportFrom) for alias in node.names}
    names |= {node.id for node in nodes(module) if isinstance(node, ast.Name)}
    return names | {node.attr for node in attributes(module)}


@cache
def texts(module: Module) -> set[str]:
    """Returns all literal texts of a module."""
    return {node.value for node in nodes(module) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def within(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
