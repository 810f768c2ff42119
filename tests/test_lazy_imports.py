"""What only reads, checks or plans from kept numbers starts without torch; the public names are all there."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import toolkit
from tests.helpers.source import ROOT, read_modules

MODULES = read_modules()

# patterns of module names; `*` is anything, also with dots
LIGHT = (
    "reports.*",
    "toolkit.apply",
    "toolkit.inspect",
    "toolkit.new",
    "toolkit.predict",
    "toolkit.sweep",
    "toolkit.train",
    "toolkit.base.*",
    "toolkit.export",
    "toolkit.exporting.axes",
    "toolkit.exporting.formats.*.format",
    "toolkit.exporting.formats.format",
    "toolkit.exporting.formats.onnx",
    "toolkit.exporting.formats.registry",
    "toolkit.exporting.formats.torch_export",
    "toolkit.exporting.report",
    "toolkit.exporting.words",
    "toolkit.measure.possible",
    "toolkit.measure.results",
    "toolkit.measure.runtimes.*",
    "toolkit.planning.arguments",
    "toolkit.planning.budget",
    "toolkit.planning.search.*",
    "toolkit.planning.settings",
    "toolkit.planning.solve",
    "toolkit.planning.tables",
    "toolkit.preflight.arguments",
    "toolkit.preflight.remedies",
    "toolkit.preflight.report",
    "toolkit.preflight.words",
    "toolkit.recipe.*",
    "toolkit.record.*",
    "toolkit.redundancy.report",
    "toolkit.redundancy.words",
    "toolkit.schema",
    "toolkit.stages.*.detail",
    "toolkit.stages.*.settings",
    "toolkit.stages.contract",
    "toolkit.stages.detail",
    "toolkit.stages.settings",
    "toolkit.starters.*",
    "toolkit.sweeping.settings",
    "toolkit.tasks.*.card",
    "toolkit.tasks.cards",
    "toolkit.tasks.contract",
    "toolkit.tasks.origin",
    "toolkit.tasks.predictions",
    "toolkit.tasks.task_file",
    "toolkit.tasks.training_record",
    "toolkit.zoo.names",
    "toolkit.zoo.settings",
)

HEAVY = ("torch", "torchvision", "timm", "transformers")


def light_modules() -> list[str]:
    """Returns every package, and every module that a pattern names."""
    return [
        name
        for name, module in MODULES.items()
        if (module.is_package or any(fnmatch(name, pattern) for pattern in LIGHT)) and not name.endswith("__main__")
    ]


def first_heavy(names: list[str], folder: Path = ROOT) -> str:
    """Returns the first of the modules that brings in something heavy, imported in one new process; else nothing."""
    code = f"""
import importlib, sys
sys.path[:0] = [{str(ROOT)!r}, {str(folder)!r}]
for name in {names!r}:
    importlib.import_module(name)
    if any(package in sys.modules for package in {HEAVY!r}):
        print(name)
        break
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("pattern", LIGHT)
def test_every_pattern_names_something(pattern: str) -> None:
    assert any(fnmatch(name, pattern) for name in MODULES)


def test_light_modules_do_not_import_torch() -> None:
    assert first_heavy(light_modules()) == ""


def test_a_module_that_imports_torch_is_found(tmp_path: Path) -> None:
    (tmp_path / "made_up.py").write_text("import torch\n")
    assert first_heavy(["toolkit", "made_up", "toolkit.recipe"], tmp_path) == "made_up"


def test_every_public_name_can_be_had() -> None:
    assert toolkit.__all__
    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None
    assert set(toolkit.__all__) <= set(dir(toolkit))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="toolkit attribute comprss"):
        toolkit.comprss  # noqa: B018
