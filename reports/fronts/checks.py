"""Whether the records of a sweep can stand in one figure: baselines may differ by seed, nothing else may."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reports.comparison.runs import SAME_QUALITY, timing_settings
from toolkit.base.errors import RecordError
from toolkit.measure.results import Measurement, Quality
from toolkit.record.compare import differences
from toolkit.record.run import RunRecord

SPLITS: Final = ("test", "validation")

_SEEDED_TASK = re.compile(r"-seed\d+$")  # tad-hapt, tad-hapt-seed1: baselines of one benchmark

_ADVICE = "Cells can only stand in one figure if they were measured alike: run the odd ones again, or move them away."


def check_complete(cell: Path, record: RunRecord, seed: int) -> None:
    """Raises: RecordError: a finished record that lacks what the report reads, or is of another seed."""
    faults = []
    if record.recipe.seed != seed:
        faults.append(f"its recipe has seed {record.recipe.seed}")
    if not record.recipe.stages:
        faults.append("its recipe has no stages, so there is nothing to compare with dense")
    timings = set(record.baseline.measurement.latency_keys)
    for number, step in enumerate(record.steps):
        faults += [
            f"step {number} has no quality on {split}" for split in SPLITS if not step.measurement.quality_on(split)
        ]
        if not timings or set(step.measurement.latency_keys) != timings:
            faults.append(f"step {number} was not timed on the devices and batch sizes of the dense model, or none was")
    if faults:
        raise RecordError("\n".join(f"{cell}: {fault}" for fault in faults))


def check_alike(folder: Path, records: Sequence[tuple[str, RunRecord]]) -> None:
    """`records` are complete, each with the name of its cell.

    Raises:
        RecordError: with one line per difference to the first record, or to the first of the same seed.
    """
    faults: list[str] = []
    of_seed: dict[int, tuple[str, RunRecord]] = {}
    for name, record in records:
        first_name, first = records[0]
        faults += [f"{folder / first_name} and {folder / name}: {line}" for line in _unlike(first, record)]
        twin_name, twin = of_seed.setdefault(record.recipe.seed, (name, record))
        faults += [f"{folder / twin_name} and {folder / name}: {line}" for line in _other_baseline(twin, record)]
    if faults:
        raise RecordError("\n".join([*faults, _ADVICE]))


def _unlike(first: RunRecord, second: RunRecord) -> list[str]:
    found = [line for line in differences(first, second) if not line.startswith("task: ")]
    one, other = first.baseline.measurement, second.baseline.measurement
    pairs: dict[str, tuple[object, object]] = {
        "task (but for the seed)": (_benchmark(first), _benchmark(second)),
        "MACs (multiply-adds) of the dense model": (one.macs.total, other.macs.total),
        "parameters of the dense model": (one.num_params, other.num_params),
        "settings of the latency": (timing_settings(one.latency), timing_settings(other.latency)),
    }
    pairs |= {f"metric ({split})": (_metric(one, split), _metric(other, split)) for split in SPLITS}
    return found + [f"{what}: {a} against {b}" for what, (a, b) in pairs.items() if a != b]


def _other_baseline(first: RunRecord, second: RunRecord) -> list[str]:
    """Two cells of one seed start from the same trained model."""
    found = (
        []
        if first.recipe.task_name == second.recipe.task_name
        else [f"task: {first.recipe.task_name} against {second.recipe.task_name}"]
    )
    for split in SPLITS:
        one, other = (_quality(record.baseline.measurement, split).value for record in (first, second))
        if abs(one - other) > SAME_QUALITY:
            found.append(f"quality of the dense model ({split}): {one:.4f} against {other:.4f}")
    return [f"{line}, for the same seed" for line in found]


def _benchmark(record: RunRecord) -> str:
    return _SEEDED_TASK.sub("", record.recipe.task_name)


def _metric(measurement: Measurement, split: str) -> str:
    quality = _quality(measurement, split)
    return f"{quality.metric} on {quality.num_examples} examples"


def _quality(measurement: Measurement, split: str) -> Quality:
    quality = measurement.quality_on(split)
    assert quality is not None, "checked by check_complete"
    return quality
