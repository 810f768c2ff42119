"""Rules about imports: who may know whom. Each takes the modules and returns one line per offence."""

from __future__ import annotations

import ast
from functools import cache

from tests.helpers.source import Module, Modules, functions, imported, imported_by, is_ours, own_imports, top, within

LAYERS = """
base | hooks starters | stand_ins | measure zoo blocks | channels tasks | repair training | redundancy | stages
| recipe | record checkpoint | preflight | running planning | exporting sweeping | reports | commands | benchmarks
"""
RANKS = {folder: rank for rank, layer in enumerate(LAYERS.split("|")) for folder in layer.split()}

MOST_LINES_OF_A_COMMAND = 160

SEES_REPORTS = ("toolkit.apply", "toolkit.inspect", "toolkit.sweep", "toolkit.benchmarks")

SEEN_BY_REPORTS = (
    *("toolkit.record", "toolkit.recipe", "toolkit.base"),
    *("toolkit.measure.results", "toolkit.measure.counted"),
    *("toolkit.redundancy.report", "toolkit.redundancy.words"),
)

LIGHT_FILES_OF_STAGES = ("settings", "detail", "recorded")

NUM_IMPORTERS = {"torch_pruning": 2, "fvcore": 1, "peft": 1}  # the cut, and the stage that is torch-pruning's own


def folder_of(module: Module) -> str:
    """Returns the room of a module: a folder of `toolkit`, `commands` for files in its root, or `reports`."""
    parts = module.name.split(".")
    if parts[0] == "reports":
        return "reports"
    return parts[1] if len(parts) > 2 or module.is_package else "commands"


def packages_of(module: Module) -> list[str]:
    parts = module.name.split(".")
    return parts if module.is_package else parts[:-1]


def lower_layers_alone(modules: Modules) -> list[str]:
    """A file imports its own folder and lower layers, and no neighbour of its layer; nothing below imports the face."""
    faults = []
    for module in without_face(modules):
        folder = folder_of(module)
        if folder not in RANKS:
            faults.append(f"{module.name} is in a folder that has no layer")
            continue
        for name in own_imports(module, modules):
            if name == "toolkit":
                if folder != "commands":
                    faults.append(f"{module.name} imports the public face")
                continue
            other = folder_of(modules[name]) if name in modules else "nowhere"
            if other != folder and RANKS.get(other, 99) >= RANKS[folder]:
                faults.append(f"{module.name} ({folder}) imports {name} ({other})")
    return faults


def no_cycles(modules: Modules) -> list[str]:
    """No module imports itself by way of others."""
    uses = {module.name: own_imports(module, modules) - {"toolkit", "reports"} for module in without_face(modules)}
    done: set[str] = set()
    faults: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            faults.append(f"cycle: {' -> '.join([*path[path.index(name) :], name])}")
        elif name not in done:
            for other in sorted(uses.get(name, ())):
                visit(other, (*path, name))
            done.add(name)

    for name in uses:
        visit(name, ())
    return faults


def imports_at_the_top(modules: Modules) -> list[str]:
    """Our own packages are never imported inside a function."""
    return [
        f"{module.name}.{name} imports {other}" for module in modules.values() for name, other in _late_imports(module)
    ]


@cache
def _late_imports(module: Module) -> tuple[tuple[str, str], ...]:
    return tuple(
        (function.name, name)
        for function in functions(module)
        for name in imported_by(module, ast.walk(function))
        if is_ours(name)
    )


def root_is_the_commands(modules: Modules) -> list[str]:
    """In the root of `toolkit` there are only the face, the dispatcher and short commands, which no file imports."""
    faults = []
    commands = {module.name for module in modules.values() if is_command_file(module)}
    for name in commands:
        module = modules[name]
        if "main" not in {node.name for node in module.tree.body if isinstance(node, ast.FunctionDef)}:
            faults.append(f"{name} lies in the root and is no command: it has no main")
        if module.num_lines > MOST_LINES_OF_A_COMMAND:
            faults.append(f"{name} is a command of {module.num_lines} lines")
    for module in modules.values():
        faults += [f"{module.name} imports the command {name}" for name in own_imports(module, modules) & commands]
    return faults


def reports_stand_apart(modules: Modules) -> list[str]:
    """Few import `reports`; it imports only what a run left behind, and what describes that without torch."""
    faults = []
    for module in modules.values():
        for name in own_imports(module, modules):
            if top(module.name) != "reports" and top(name) == "reports" and not within(module.name, SEES_REPORTS):
                faults.append(f"{module.name} imports {name}")
            if top(module.name) == "reports" and top(name) == "toolkit" and not _seen_by_reports(name):
                faults.append(f"{module.name} imports {name}")
        if top(module.name) == "reports" and {top(name) for name in imported(module)} & {"torch", "safetensors"}:
            faults.append(f"{module.name} imports torch or safetensors")
    return faults


def _seen_by_reports(name: str) -> bool:
    if within(name, ("toolkit.stages",)):
        return name.rsplit(".", maxsplit=1)[-1] in LIGHT_FILES_OF_STAGES
    return within(name, SEEN_BY_REPORTS)


def siblings_apart(modules: Modules) -> list[str]:
    """No folder of a stage imports another one, except `block_drop` -> `align`; the same for folders of tasks."""
    faults = []
    for module in modules.values():
        if not within(module.name, ("toolkit.stages", "toolkit.tasks")):
            continue
        for name in own_imports(module, modules):
            if name not in modules or packages_of(module)[:2] != packages_of(modules[name])[:2]:
                continue
            own, other = packages_of(module), packages_of(modules[name])
            shared = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
            if shared is not None and (own[shared], other[shared]) != ("block_drop", "align"):
                faults.append(f"{module.name} imports {name}")
    return faults


def heavy_packages_have_one_importer(modules: Modules) -> list[str]:
    """What is heavy, or may be replaced one day, is known in one place; torch_pruning in two."""
    faults = []
    for package, most in NUM_IMPORTERS.items():
        users = [module.name for module in modules.values() if package in map(top, imported(module))]
        if len(users) != most:
            faults.append(f"{package} is imported by {', '.join(users)}")
    return faults


def without_face(modules: Modules) -> list[Module]:
    return [module for module in modules.values() if module.name != "toolkit"]


def is_command_file(module: Module) -> bool:
    parts = module.name.split(".")
    return parts[0] == "toolkit" and len(parts) == 2 and not module.is_package and parts[1] != "__main__"
