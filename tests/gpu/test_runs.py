"""Runs on CUDA: they resume there, load where there is no CUDA, and say what does not fit into memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.helpers.cuda_task import DeviceTask, recipe_on, run_on
from tests.helpers.source import ROOT
from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.planning.budget import Budget, Limit
from toolkit.planning.session import open_session
from toolkit.planning.settings import PlanSettings
from toolkit.record.run import RUN_FILE, load_record
from toolkit.running.runner import run
from toolkit.stages.block_drop.settings import BlockDrop
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep

STAGES = (BlockDrop(num_blocks=1, criterion="loss"), ChannelPrune(keep=Keep(mlp=0.5)))

LOADING = """
import sys, torch
from tests.helpers.cuda_task import DeviceTask
from toolkit.checkpoint.load import load_model
assert not torch.cuda.is_available()
task = DeviceTask()
model = load_model(sys.argv[1], task.build_model())
print(task.evaluate(model, "test").value)
"""


def test_a_run_resumes_on_cuda_and_loads_without_it(tmp_path: Path) -> None:
    whole = run_on("cuda", tmp_path, *STAGES)
    content = json.loads((tmp_path / RUN_FILE).read_text())
    content |= {"finished": False, "steps": content["steps"][:-1]}  # as if it had been stopped in its last stage
    (tmp_path / RUN_FILE).write_text(json.dumps(content))
    for folder in ("model", "stages/02-channel_prune"):
        shutil.rmtree(tmp_path / folder)
    run(recipe_on("cuda", *STAGES), task=DeviceTask(), out=tmp_path, resume=True, console=Console(io.StringIO()))
    again = load_record(tmp_path)
    last, before = again.steps[-1].measurement, whole.steps[-1].measurement
    assert again.finished and last.macs == before.macs
    values = [measured.quality_on("test") for measured in (last, before)]
    assert (
        values[0] is not None and values[1] is not None and values[0].value == pytest.approx(values[1].value, abs=1e-3)
    )
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(tmp_path)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == pytest.approx(values[0].value, abs=1e-3)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """256 MiB are all there is."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**28 / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
def test_out_of_memory_names_the_batch_size(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"timing on cuda: the device is out of memory at batch size 300000; time"):
        run_on("cuda", tmp_path / "timed", batch_sizes=(300_000,))


def test_a_plan_for_cuda_is_timed_there(tmp_path: Path) -> None:
    settings = PlanSettings(
        device="cuda", batch_sizes=(16,), threads=1, tables=tmp_path, examples=8, num_finalists=0, bypass=False
    )
    planner = open_session(DeviceTask(), settings, console=Console(io.StringIO()))
    budget = Budget(limits=(Limit(resource="latency", value=0.9),), batch_size=16, threads=1)
    note = planner.plan(budget, "depth", 0).note
    (key,) = note.predicted.latency_ratio
    assert (key.device, key.batch_size) == ("cuda", 16) and note.predicted.latency_ratio[key] <= 0.9
