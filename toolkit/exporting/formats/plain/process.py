"""Runs a written load.py in a process that cannot import the toolkit."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.format import Runner
from toolkit.exporting.graph import Inputs
from toolkit.exporting.quiet import without_colours
from toolkit.hooks.tensors import entries_of, tensors_in

_ABSENT = (__name__.partition(".")[0], "reports")

_HEAD = """
import importlib.util, sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %(absent)r:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
sys.dont_write_bytecode = True
file, calls, results, threads = sys.argv[1:]
import torch
from torch import Tensor
torch.set_num_threads(int(threads))
torch.backends.mha.set_fastpath_enabled(False)  # another order of additions, and zeros in the places of padding
"""

_TAIL = """
spec = importlib.util.spec_from_file_location("load", file)
load = importlib.util.module_from_spec(spec)
sys.modules["load"] = load
spec.loader.exec_module(load)
model = load.load_model()
with torch.no_grad():
    outputs = [tensors_in(model(*inputs)) for inputs in torch.load(calls, weights_only=True)]
torch.save([[part.clone() for part in parts] for parts in outputs], results)
"""


def runner_without_toolkit(folder: Path, threads: int) -> Runner:
    """Returns a callable that loads the model with the folder's load.py in a new process, and runs it there.

    The process can import what this one can, but for the toolkit. The callable raises ExportError where that fails.
    """
    script = "\n".join(
        [
            _HEAD % {"absent": _ABSENT},
            "from typing import Any",
            *map(inspect.getsource, (entries_of, tensors_in)),
            _TAIL,
        ]
    )

    def run(calls: Sequence[Inputs]) -> list[list[Tensor]]:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            (place / "run.py").write_text(f"from __future__ import annotations\n{script}", encoding="utf-8")
            torch.save([tuple(tensor.detach() for tensor in inputs) for inputs in calls], place / "calls")
            names = [folder / "load.py", place / "calls", place / "results", threads]
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            done = subprocess.run(
                [sys.executable, str(place / "run.py"), *map(str, names)],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "PYTHONPATH": path},
            )
            if done.returncode:
                lines = without_colours(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
                raise ExportError(f"load.py fails in a process that cannot import this toolkit: {lines[-1][:300]}")
            outputs: list[list[Tensor]] = torch.load(place / "results", weights_only=True)
            return outputs

    return run
