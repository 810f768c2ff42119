"""Checks that the records of a sweep can be drawn in one figure: only the seeds and their baselines may differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from reports.comparison.runs import SAME_QUALITY, timing_settings
from toolkit.base.errors import RecordError
from toolkit.measure.results import Measurement
from toolkit.record.compare import differences
from toolkit.record.run import RunRecord

SPLITS: Final = ("test", "validation")  # a sweep may leave out validation, which points.csv alone shows

_SEEDED_TASK = re.compile(r"-seed\d+$")  # tad-hapt and tad-hapt-seed1 are baselines of one benchmark

_ADVICE = (
    "Cells can be drawn in one figure only if they were measured alike. Run the cells that differ again, or move their "
    "folders away."
)


def check_complete(cell: Path, record: RunRecord, seed: int) -> None:
    """Raises RecordError where a finished record lacks what the report reads, or is of another seed than its folder.

    cell: the folder of the cell.
    """
    faults = []
    if record.recipe.seed != seed:
        faults.append(f"its recipe has seed {record.recipe.seed}, but its folder is of seed {seed}")
    if not record.recipe.stages:
        faults.append("its recipe has no stages, so there is nothing to compare with dense")
    timings = set(record.baseline.measurement.latency_keys)
    splits = [split for split in SPLITS if split == "test" or split in record.recipe.measure.splits]
    for number, step in enumerate(record.steps):
        faults += [
            f"step {number} has no quality on {split}" for split in splits if not step.measurement.quality_on(split)
        ]
        if not timings or set(step.measurement.latency_keys) != timings:
            faults.append(f"step {number} or the dense model was not timed, or not at the same batch sizes and devices")
    if faults:
        raise RecordError("\n".join(f"{cell}: {fault}" for fault in faults))


def check_alike(folder: Path, records: Sequence[tuple[str, RunRecord]]) -> None:
    """Raises RecordError where records differ from the first one, or from the first of the same seed.

    The message has one line for each difference.

    records: complete records, each with the name of its cell.
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
    lines = [line for line in differences(first, second) if not line.startswith("task: ")]
    left, right = first.baseline.measurement, second.baseline.measurement
    pairs: dict[str, tuple[object, object]] = {
        "task (but for the seed)": (_benchmark(first), _benchmark(second)),
        "MACs (multiply-adds) of the dense model": (left.macs.total, right.macs.total),
        "parameters of the dense model": (left.num_params, right.num_params),
        "settings of the latency": (timing_settings(left.latency), timing_settings(right.latency)),
    }
    pairs |= {f"metric ({split})": (_metric(left, split), _metric(right, split)) for split in SPLITS}
    return lines + [f"{what}: {a} against {b}" for what, (a, b) in pairs.items() if a != b]


def _other_baseline(first: RunRecord, second: RunRecord) -> list[str]:
    """Returns differences between the trained models that two cells of one seed start from."""
    lines = (
        []
        if first.recipe.task_name == second.recipe.task_name
        else [f"task: {first.recipe.task_name} against {second.recipe.task_name}"]
    )
    for split in SPLITS:
        left, right = (record.baseline.measurement.quality_on(split) for record in (first, second))
        if left and right and abs(left.value - right.value) > SAME_QUALITY:
            lines.append(f"quality of the dense model ({split}): {left.value:.4f} against {right.value:.4f}")
    return [f"{line}, for the same seed" for line in lines]


def _benchmark(record: RunRecord) -> str:
    return _SEEDED_TASK.sub("", record.recipe.task_name)


def _metric(measurement: Measurement, split: str) -> str:
    quality = measurement.quality_on(split)
    return "not measured" if quality is None else f"{quality.metric} on {quality.num_examples} examples"
