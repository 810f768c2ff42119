"""Rules about what can be taken in at once. Each takes the modules and returns one line per offence."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from tests.helpers.source import Module, Modules

MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 250, 50, 8

MANY_PARAMETERS = {
    "toolkit.recipe.compose.compose": "public, by keyword only: a recipe in one call",
    "toolkit.planning.plan_recipe.plan_recipe": "public, by keyword only: a budget into a recipe in one call",
    "toolkit.tasks.classification.ClassificationTask.__init__": "public: a task of one's own in one call",
}


def packages_say_what_they_hold(modules: Modules) -> list[str]:
    """Every folder has a docstring of one line."""
    return [
        f"{module.name} has no docstring of one line"
        for module in modules.values()
        if module.is_package and module.name != "toolkit" and len(docstring(module).splitlines()) != 1
    ]


def docstring(module: Module) -> str:
    return ast.get_docstring(module.tree) or ""


def everything_is_short(modules: Modules) -> list[str]:
    """Files, functions and lists of parameters can be taken in at once."""
    return [fault for module in modules.values() for fault in _too_long(module)]


@cache
def _too_long(module: Module) -> tuple[str, ...]:
    faults = []
    if module.num_lines > MOST_LINES:
        faults.append(f"{module.name} has {module.num_lines} lines: more than one concept?")
    for name, function in qualified(module.tree, module.name):
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > MOST_LINES_OF_A_FUNCTION:
            faults.append(f"{name} has {length} lines")
        if num_parameters(function) > MOST_PARAMETERS and name not in MANY_PARAMETERS:
            faults.append(f"{name} has {num_parameters(function)} parameters")
    return tuple(faults)


def qualified(tree: ast.AST, place: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{place}.{node.name}", node
        name = getattr(node, "name", None)
        yield from qualified(node, f"{place}.{name}" if isinstance(name, str) else place)


def num_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Returns the number of parameters, without `self` or `cls`."""
    given = function.args
    names = [part.arg for part in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    rest = sum(part is not None for part in (given.vararg, given.kwarg))
    return len(names) - (names[:1] in (["self"], ["cls"])) + rest
