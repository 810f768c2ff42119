"""The house rules that a machine can hold: imports go one way, heavy packages have one importer each."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "toolkit").rglob("*.py"), *(ROOT / "reports").rglob("*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): ast.parse(path.read_text()) for path in FILES}


def imported(tree: ast.AST) -> set[str]:
    """Full names of what a piece of code imports; type-checking imports count too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_there_is_something_to_look_at() -> None:
    assert len(MODULES) > 60


def test_no_cycles() -> None:
    """The lazy exports of `toolkit/__init__` are its only knowledge of the rest, and are left out."""
    uses = {
        name: {other for other in imported(tree) if other in MODULES and other not in (name, "toolkit", "reports")}
        for name, tree in MODULES.items()
        if name != "toolkit"
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            for other in uses.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in uses:
        visit(name, ())


def test_heavy_packages_have_one_importer() -> None:
    for package in ("fvcore", "torch_pruning"):
        users = [
            name for name, tree in MODULES.items() if any(other.split(".")[0] == package for other in imported(tree))
        ]
        assert len(users) == 1, f"{package} is imported by {users}"


def test_reports_know_no_torch() -> None:
    for name, tree in MODULES.items():
        if name.split(".")[0] == "reports":
            assert not any(other.split(".")[0] in ("torch", "safetensors") for other in imported(tree)), name


def test_our_own_package_is_never_imported_inside_a_function() -> None:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                own = {other for other in imported(node) if other.split(".")[0] in ("toolkit", "reports")}
                assert not own, f"{name}.{node.name} imports {own}"


def test_files_and_functions_are_short() -> None:
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, f"{path}: more than one concept?"
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 60, f"{name}.{node.name} has {length} lines"
