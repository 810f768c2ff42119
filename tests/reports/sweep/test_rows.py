"""Which of a record's numbers a sweep's table shows."""

from __future__ import annotations

import pytest

from reports.sweep.rows import sweep_rows
from tests.helpers.example_records import depth_record, on_two_devices
from toolkit.measure.results import MeasurementKey


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_latency_is_that_of_the_largest_batch_on_the_device_of_the_run(device: str) -> None:
    """Whatever else was timed, and in whatever order."""
    made = on_two_devices(depth_record(), device)
    key = MeasurementKey(device=device, batch_size=16)
    latencies = [step.measurement.latency_at(key) for step in made.steps]
    rows = sweep_rows({"depth/seed0": made})
    assert [row.latency for row in rows] == [[latency.ratio] for latency in latencies if latency]
    assert len(rows) == len(made.steps)
