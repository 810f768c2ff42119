"""What a run times: every batch size on every device that is there, each under its own key."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.tiny_task import TinyTask
from toolkit.measure.results import MeasurementKey
from toolkit.recipe.compose import compose
from toolkit.recipe.recipe import Measure, Recipe
from toolkit.running.measuring import latency_keys, measure
from toolkit.stages.block_drop.settings import BlockDrop

RECIPE = compose(
    task="tiny",
    depth=BlockDrop(num_blocks=1, criterion="loss"),
    measure=Measure(batch_sizes=(2, 1), threads=1, repeats=3, warmup=0),
)


def on(device: str) -> Recipe:
    return RECIPE.model_copy(update={"device": device})


def keys(device: str) -> list[MeasurementKey]:
    return [MeasurementKey(device=device, batch_size=size) for size in (2, 1)]


def test_the_devices_that_are_there_are_timed_that_of_the_run_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert latency_keys(on("cpu")) == keys("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert latency_keys(on("cpu")) == keys("cpu") + keys("cuda")
    assert latency_keys(on("cuda")) == keys("cuda") + keys("cpu")


def test_every_latency_has_the_key_that_it_was_taken_for(tiny_task: TinyTask) -> None:
    dense = tiny_task.load_baseline()
    measured = measure(dense, dense, tiny_task, RECIPE)
    assert list(measured.latency_keys) == latency_keys(RECIPE)
    assert {len(latency.samples_s) for latency in measured.latency} == {3}
