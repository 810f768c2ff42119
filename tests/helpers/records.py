"""Comparing run records."""

from __future__ import annotations

from typing import Any

from toolkit.record.run import RunRecord


def without_times(record: RunRecord) -> dict[str, Any]:
    """All that two runs of the same recipe on the same machine must agree in."""
    content = record.model_dump(mode="json")
    for step in content["steps"]:
        step["seconds"] = None
        for latency in step["measurement"]["latency"]:
            latency["samples_s"] = latency["dense_samples_s"] = None
    return content
