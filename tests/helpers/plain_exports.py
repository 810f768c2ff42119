"""Compresses models by hand, saves them, and writes them as plain code, which is run here or where no toolkit is."""

from __future__ import annotations

import ast
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from toolkit import ExportSettings, Task, export_run
from toolkit.blocks.drop import drop_block
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.find import find_groups, half_of
from toolkit.checkpoint.save import save_model
from toolkit.exporting.formats.plain import process
from toolkit.exporting.report import ExportReport
from toolkit.hooks.tensors import tensors_in

Inputs = tuple[Tensor, ...]

PLAIN = ExportSettings(format="plain")


def task_of(build: Any, inputs: Inputs) -> Task:
    """As much of a task as an export asks for; `build` is its `build_model`."""

    def example_inputs(size: int) -> Inputs:
        return tuple(part[torch.arange(size) % len(part)] for part in inputs)

    return cast("Task", SimpleNamespace(name="mine", build_model=build, example_inputs=example_inputs))


def compressed(dense: nn.Module, inputs: Inputs, drops: Sequence[str], cuts: int | None = 0) -> nn.Module:
    """A copy without the blocks `drops`, and with half the channels of the first `cuts` groups (None: of all)."""
    model = copy.deepcopy(dense).eval()
    for block in find_blocks(model, inputs):
        if block in drops:
            drop_block(model, block)
    if cuts != 0:
        cut(model, [half_of(group) for group in find_groups(model, inputs, []).groups[:cuts]])
    return model


def save(folder: Path, model: nn.Module, dense: nn.Module, inputs: Inputs, **more: Any) -> None:
    given = {"factory": {"task": "mine"}, "recipe_sha256": None} | more
    save_model(folder, model, dense, example_inputs=inputs, **given)


def exported(folder: Path, task: Task | None = None) -> tuple[ExportReport, str]:
    """The report of a plain export of what is saved in `folder`, and the text of load.py."""
    report = export_run(folder, PLAIN, task=task, path=folder.parent / "plain")
    text = (folder.parent / "plain" / "load.py").read_text()
    assert sorted(path.name for path in (folder.parent / "plain").iterdir()) == ["load.py", "model.safetensors"]
    assert_names_no_toolkit(text)
    return report, text


def assert_names_no_toolkit(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {module.partition(".")[0] for module in modules} & {"toolkit", "reports", "tests"}


def load_plain(folder: Path) -> Any:
    """The module load.py of a folder, run in this process."""
    module = ModuleType("load_in_a_test")
    module.__file__ = str(folder / "load.py")
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    exec(compile((folder / "load.py").read_text(), "load.py", "exec"), vars(module))
    return module


def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets exports run load.py in this process, because a new one takes seconds to import torch."""

    def runner(folder: Path, _: int) -> Any:
        def run(calls: Sequence[Inputs]) -> list[list[Tensor]]:
            model = load_plain(folder).load_model()
            with torch.no_grad():
                return [tensors_in(model(*inputs)) for inputs in calls]

        return run

    monkeypatch.setattr(process, "runner_without_toolkit", runner)
