"""Rules about names that few may use. Each takes the modules and returns one line per offence."""

from __future__ import annotations

import ast
from functools import cache
from typing import get_args

from tests.helpers.import_rules import is_command_file
from tests.helpers.source import (
    Module,
    Modules,
    attributes,
    classes,
    functions,
    imported,
    nodes,
    texts,
    top,
    used_names,
    within,
)
from toolkit.stages.settings import Stage

NAMES_STAGES = ("toolkit.recipe.compose", "toolkit.planning", "toolkit.benchmarks")

NAMES_ZOO = (
    "toolkit.zoo",
    "toolkit.tasks.agreement",
    "toolkit.checkpoint.factory",
    "toolkit.benchmarks.zoo_matrix",  # the benchmark of that task
)

REGISTERS_HOOKS = tuple(f"toolkit.{folder}" for folder in ("hooks", "blocks", "channels", "measure", "repair"))

KNOWS_PRIVATE_NAMES = (*REGISTERS_HOOKS, "toolkit.zoo", "toolkit.checkpoint")

DEFINES_BASES = ("toolkit.base.settings", "toolkit.stages.recorded")  # a detail keeps keys that it does not know

HASHES_AND_REPLACES = ("toolkit.base.files",)


def few_name_stages(modules: Modules) -> list[str]:
    """Outside of `stages`, few files name the class of a stage: the others ask the stage."""
    stages = {member.__name__ for member in get_args(get_args(Stage)[0])}
    assert stages
    return [
        f"{module.name} names {name}"
        for module in modules.values()
        if not within(module.name, ("toolkit.stages", *NAMES_STAGES)) and not is_command_file(module)
        for name in used_names(module) & stages
    ]


def few_name_zoo(modules: Modules) -> list[str]:
    """Few files name the task `zoo`: its card says that it takes a model."""
    return [
        f"{module.name} names the task zoo"
        for module in modules.values()
        if not within(module.name, NAMES_ZOO) and ("ZOO" in used_names(module) or "zoo" in texts(module))
    ]


def few_register_hooks(modules: Modules) -> list[str]:
    """Hooks of a forward pass are registered where running a model is watched, and nowhere else."""
    return [
        f"{module.name} calls {node.attr}"
        for module in modules.values()
        if not within(module.name, REGISTERS_HOOKS)
        for node in attributes(module)
        if node.attr.startswith(("register_forward", "register_module_forward"))
    ]


def private_names_stay_private(modules: Modules) -> list[str]:
    """Underscore names of torch are used in few folders; those of ours only in the file that defines them."""
    return [
        f"{module.name} uses {name}"
        for module in modules.values()
        if not within(module.name, KNOWS_PRIVATE_NAMES)
        for name in _foreign_private_names(module)
    ]


@cache
def _foreign_private_names(module: Module) -> tuple[str, ...]:
    """Returns private names that the module does not define: of torch, or of another file of ours."""
    defined = {*classes(module), *(function.name for function in functions(module))}
    defined |= {node.attr for node in attributes(module) if isinstance(node.ctx, ast.Store)}
    names = [ast.unparse(node) for node in attributes(module) if is_private(node.attr) and node.attr not in defined]
    return (*names, *(name for name in imported(module) if any(map(is_private, name.split(".")))))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def hashes_and_replaces_in_one_place(modules: Modules) -> list[str]:
    """Files are written whole, and hashed, by the same few functions."""
    return [
        f"{module.name} uses {name}"
        for module in modules.values()
        if not within(module.name, HASHES_AND_REPLACES)
        for name in _hashes_and_replaces(module)
    ]


@cache
def _hashes_and_replaces(module: Module) -> tuple[str, ...]:
    names = {ast.unparse(node) for node in attributes(module)} | imported(module)
    return tuple(name for name in names if name in ("os.replace", "hashlib"))


def models_have_two_bases(modules: Modules) -> list[str]:
    """Every pydantic model is `Settings` or `Data`, so that all of them are equally strict."""
    return [
        f"{module.name}.{name} is a BaseModel of its own"
        for module in modules.values()
        if module.name not in DEFINES_BASES
        for name in _direct_models(module)
    ]


@cache
def _direct_models(module: Module) -> tuple[str, ...]:
    return tuple(
        node.name
        for node in nodes(module)
        if isinstance(node, ast.ClassDef) and "BaseModel" in map(ast.unparse, node.bases)
    )


def class_names_once(modules: Modules) -> list[str]:
    """No two classes of `toolkit` have the same name."""
    places: dict[str, list[str]] = {}
    for module in modules.values():
        for name in classes(module) if top(module.name) == "toolkit" else ():
            places.setdefault(name, []).append(module.name)
    return [f"{name} is a class in {' and '.join(where)}" for name, where in places.items() if len(where) > 1]
