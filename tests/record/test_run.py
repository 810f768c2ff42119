"""Run records: what is damaged is refused, what was written by an earlier version is still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toolkit.base.errors import RecordError
from toolkit.record.run import load_record

RESULTS = Path(__file__).parents[2] / "reports" / "results"
RECORDS = sorted(RESULTS.rglob("run.json"))


def test_all_shipped_records_load() -> None:
    assert len(RECORDS) >= 5
    for path in RECORDS:
        assert load_record(path.parent).finished


@pytest.mark.parametrize(
    ("run", "has_model"),
    [("tad_watch_fronts/combined_0.6/seed0", False), ("rounding/resnet18/round_to_4/seed0", True)],
)
def test_recipes_have_the_hash_that_they_had(run: str, has_model: bool) -> None:
    """A field that was added to recipes leaves no trace in a recipe that does not use it."""
    record = load_record(RESULTS / run)
    assert (record.recipe.model is not None) == has_model
    assert record.recipe.sha256 == record.recipe_sha256


DAMAGES: dict[str, Any] = {
    "no steps": lambda c: c.update(steps=[]),
    "a step too many": lambda c: c.update(steps=[*c["steps"], c["steps"][-1]], finished=False),
    "a step too few": lambda c: c.update(steps=c["steps"][:-1]),
    "swapped": lambda c: c["steps"].insert(1, c["steps"].pop(2)),
    "no MACs": lambda c: c["steps"][0]["measurement"]["macs"].update(total=0),
    "no parameters": lambda c: c["steps"][0]["measurement"].update(num_params=0),
    "no time": lambda c: c["steps"][0]["measurement"]["latency"][0].update(samples_s=[0.0]),
    "no samples": lambda c: c["steps"][0]["measurement"]["latency"][0].update(samples_s=[]),
    "a sample alone": lambda c: c["steps"][0]["measurement"]["latency"][0]["samples_s"].append(0.1),
    "another seed": lambda c: c["recipe"].update(seed=7),
    "another version": lambda c: c.update(schema_version=2),
    "an unknown key": lambda c: c.update(extra=1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_inconsistent_records_are_refused(damage: str, tmp_path: Path) -> None:
    content = json.loads((RESULTS / "tad_watch" / "depth_then_width" / "run.json").read_text())
    DAMAGES[damage](content)
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"run\.json"):
        load_record(tmp_path)
