"""Fixtures that several test files share."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.helpers.tiny_task import TinyTask
from toolkit.base.console import Console
from toolkit.measure.macs import count_macs
from toolkit.stages.context import StageContext

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for what tests start; this process is told by `one_thread`


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The models here are tiny: more threads only wait for each other, 40 times slower on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def path_as_before() -> Iterator[None]:
    """The folder of a user's task file is put on the path."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def tiny_task() -> TinyTask:
    return TinyTask()


@pytest.fixture
def quiet() -> Console:
    return Console(io.StringIO())


@pytest.fixture
def tiny_context(tiny_task: TinyTask, quiet: Console) -> StageContext:
    dense = tiny_task.load_baseline()

    def macs(model: nn.Module) -> int:
        return count_macs(model, tiny_task.example_inputs(1)).total

    return StageContext(
        dense=dense, dense_macs=macs(dense), count_macs=macs, device=torch.device("cpu"), seed=0, console=quiet
    )
