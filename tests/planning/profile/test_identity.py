"""What kept numbers are called and bound to."""

from __future__ import annotations

from typing import Any

from toolkit.measure.results import MeasurementKey
from toolkit.planning.profile.identity import kept_name


def test_kept_latencies_of_other_runtimes_and_precisions_have_other_names() -> None:
    kinds: list[dict[str, Any]] = [{}, {"runtime": "compile"}, {"precision": "bfloat16"}]
    names = [kept_name(MeasurementKey(device="cuda", batch_size=16, **kind)) for kind in kinds]
    assert names == ["16", "compile_cuda_batch16", "cuda_bfloat16_batch16"]
