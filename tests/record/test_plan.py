"""Records of plans: latencies by what they are of, those of earlier versions included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.example_fronts import plan_note
from toolkit.base.errors import RecordError
from toolkit.measure.results import MeasurementKey
from toolkit.record.plan import PLAN_FILE, Predicted, load_plan_record

RESULTS = Path(__file__).parents[2] / "reports" / "results"
PLANS = sorted(RESULTS.rglob(PLAN_FILE))


def test_all_shipped_plans_load_and_keep_their_latencies() -> None:
    earlier = []
    for path in PLANS:
        raw, plan = json.loads(path.read_text()), load_plan_record(path.parent)
        if set(raw["predicted"]["latency_ratio"]) != {"1", "16"}:
            continue
        earlier.append(path)
        for found, written in (
            (plan.predicted.latency_ratio, raw["predicted"]["latency_ratio"]),
            (plan.measured_latency_ratio, raw["measured_latency_ratio"]),
        ):
            sizes = {int(size): ratio for size, ratio in written.items()}
            assert found == {MeasurementKey(device="cpu", batch_size=size): ratio for size, ratio in sizes.items()}
    assert len(earlier) >= 5


def test_batch_sizes_of_earlier_versions_are_of_the_device_of_the_plan(tmp_path: Path) -> None:
    plan_note("depth", 0.5).save(tmp_path)
    content = json.loads((tmp_path / PLAN_FILE).read_text())
    content |= {"device": "cuda", "measured_latency_ratio": {"16": 0.5}}
    content["predicted"]["latency_ratio"] = {"1": 0.6, "16": 0.4}
    (tmp_path / PLAN_FILE).write_text(json.dumps(content))
    plan = load_plan_record(tmp_path)
    keys = [MeasurementKey(device="cuda", batch_size=size) for size in (1, 16)]
    assert plan.predicted.latency_ratio == dict(zip(keys, (0.6, 0.4), strict=True))
    assert plan.measured_latency_ratio == {keys[1]: 0.5}


def test_bypasses_read_back_and_plans_of_earlier_versions_have_none(tmp_path: Path) -> None:
    plan = plan_note("depth", 0.5, bypassed={"blocks.3": "full", "blocks.7": 16})
    plan.save(tmp_path)
    assert load_plan_record(tmp_path) == plan
    content = json.loads((tmp_path / PLAN_FILE).read_text())
    assert content.pop("bypassed") == {"blocks.3": "full", "blocks.7": 16}
    (tmp_path / PLAN_FILE).write_text(json.dumps(content))
    assert load_plan_record(tmp_path) == plan.model_copy(update={"bypassed": {}})


def test_every_key_reads_back(tmp_path: Path) -> None:
    keys = [
        MeasurementKey(device="cpu", batch_size=1),
        MeasurementKey(runtime="cuda_graph", device="cuda", precision="bfloat16", batch_size=16),
    ]
    predicted = Predicted(macs_ratio=0.5, params_ratio=0.5, latency_ratio=dict.fromkeys(keys, 0.4))
    plan = plan_note("depth", 0.5, predicted=predicted, measured_latency_ratio={keys[1]: 0.5})
    plan.save(tmp_path)
    content = json.loads((tmp_path / PLAN_FILE).read_text())
    assert content["predicted"]["latency_ratio"] == {"cpu_batch1": 0.4, "cuda_graph_cuda_bfloat16_batch16": 0.4}
    assert load_plan_record(tmp_path) == plan


DAMAGES: dict[str, Any] = {
    "no device": lambda c: c.pop("device"),
    "no batch": lambda c: c["predicted"]["latency_ratio"].update({"0": 0.5}),
    "a key of nothing": lambda c: c["predicted"]["latency_ratio"].update({"cpu": 0.5}),
    "no keys": lambda c: c.update(measured_latency_ratio=[0.5]),
    "no prediction": lambda c: c.pop("predicted"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_plans_are_refused(damage: str, tmp_path: Path) -> None:
    content = json.loads(PLANS[0].read_text())
    DAMAGES[damage](content)
    (tmp_path / PLAN_FILE).write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"plan\.json: missing or damaged"):
        load_plan_record(tmp_path)
