"""What the closing table says of a cut that made a model slower."""

from __future__ import annotations

import pytest

from reports.run.closing import closing_notes, closing_table, slower_steps, unsteady_timings
from tests.helpers.example_records import on_two_devices, record, width_step
from toolkit.record.run import RunRecord
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep


def narrowed_twice(first: float, second: float) -> RunRecord:
    stages = (ChannelPrune(keep=Keep(mlp=0.5)), ChannelPrune(keep=Keep(mlp=0.25)))
    return record("twice", stages, (width_step(0.8, first, 0.7), width_step(0.6, second, 0.7)))


def test_a_cut_that_measures_slower_is_named() -> None:
    made = narrowed_twice(0.8, 0.95)
    before, after = (step.measurement.latency[0].ratio for step in made.steps[1:])
    lines = slower_steps(made)
    assert [line.split(":")[0] for line in lines] == ["SLOWER"] * 2
    assert f"stage 2 channel_prune made the model slower on cpu at batch 1: latency ratio {before:.3f}" in lines[0]
    assert f"-> {after:.3f}, although it does less" in lines[0]


def test_devices_are_told_apart_whatever_their_order() -> None:
    made = on_two_devices(narrowed_twice(0.8, 0.95), "cuda")
    *before, step = made.steps
    last = step.measurement
    turned = step.model_copy(update={"measurement": last.model_copy(update={"latency": last.latency[::-1]})})
    made = made.model_copy(update={"steps": (*before, turned)})
    lines = slower_steps(made)
    places = [f"slower on {device} at batch {size}:" for device in ("cpu", "cuda") for size in (16, 1)]
    assert len(lines) == 4 and all(place in line for place, line in zip(places, lines, strict=True))
    columns, rows = closing_table(made)
    keys = [f"latency {device} batch {size}" for device in ("cuda", "cpu") for size in (1, 16)]
    assert columns[3:7] == keys
    assert rows[2][3:7] == [f"{last.latency[place].ratio:.3f}" for place in range(4)]


def test_noise_and_gains_are_not_named() -> None:
    assert slower_steps(narrowed_twice(0.8, 0.805)) == []
    assert slower_steps(narrowed_twice(0.8, 0.6)) == []


@pytest.mark.parametrize(("ratio", "is_steady"), [(1.0, True), (0.96, True), (1.04, True), (1.06, False), (0.9, False)])
def test_a_baseline_that_is_not_as_fast_as_itself_is_named(ratio: float, is_steady: bool) -> None:
    made = narrowed_twice(0.8, 0.7)
    baseline, *steps = made.steps
    latency = baseline.measurement.latency[0]
    changed = latency.model_copy(update={"samples_s": tuple(ratio * time_s for time_s in latency.dense_samples_s)})
    measurement = baseline.measurement.model_copy(update={"latency": (changed,)})
    made = made.model_copy(update={"steps": (baseline.model_copy(update={"measurement": measurement}), *steps)})
    lines = unsteady_timings(made)
    assert len(lines) == (0 if is_steady else 1)
    assert is_steady or f"has the ratio {ratio:.3f} on cpu at batch 1, not 1" in lines[0]
    assert all(line in closing_notes(made) for line in lines)
