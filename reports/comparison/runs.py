"""Loads the runs to compare, refuses runs that were not measured alike, and turns runs into points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.comparison.pareto import Point
from reports.drawing.words import MACS_AXIS, timed_at
from toolkit.base.errors import RecordError
from toolkit.measure.results import Latency, Measurement, MeasurementKey
from toolkit.record.compare import differences
from toolkit.record.run import RunRecord, load_record

SAME_QUALITY = 1e-3  # largest difference in the dense model's quality; CPU and CUDA sums differ by less

ADVICE = (
    "Runs can be compared only if they share the task, the trained model, the machine, `device` and `measure`. Repeat "
    "the runs that differ with `python -m toolkit.apply RECIPE --out NEW_DIR`, or leave them out."
)


@dataclass(frozen=True)
class Run:
    """Holds a run's folder and record; `label` is the name of the folder, or its path where two names are equal."""

    label: str
    folder: Path
    record: RunRecord


@dataclass(frozen=True)
class Cost:
    """Describes a cost that runs are compared by.

    key: its name in points and in names of files.
    words: its name on the axis.
    timing: the key of the latency; None for other costs.
    """

    key: str
    words: str
    timing: MeasurementKey | None = None


def load_runs(folders: Sequence[Path], split: str) -> list[Run]:
    """Returns the runs in the folders, which must be finished and measured alike.

    split: the split that quality is compared on.

    Raises:
        RecordError: a folder is given twice or has no readable record, a run is not finished, or runs were not
            measured alike.
    """
    resolved = [folder.resolve() for folder in folders]
    if repeated := {str(path) for path in resolved if resolved.count(path) > 1}:
        raise RecordError(f"{', '.join(sorted(repeated))}: given more than once; give each run once")
    names = [path.name for path in resolved]
    labels = [str(folder) if names.count(name) > 1 else name for folder, name in zip(folders, names, strict=True)]
    runs = [Run(label, folder, load_record(folder)) for label, folder in zip(labels, folders, strict=True)]
    for run in runs:
        _check_complete(run, split)
    if faults := [fault for run in runs[1:] for fault in _unlike(runs[0], run, split)]:
        raise RecordError("\n".join([*faults, ADVICE]))
    return runs


def costs_of(dense: Measurement) -> list[Cost]:
    """Returns by what models are compared: latencies, parameters, and multiply-adds unless their count is partial."""
    latency = [Cost(latency_column(key), f"latency ({timed_at(key)})", key) for key in dense.latency_keys]
    macs = [] if dense.macs.is_partial else [Cost("macs_ratio", MACS_AXIS)]
    return [*macs, Cost("params_ratio", "parameters"), *latency]


def latency_column(key: MeasurementKey) -> str:
    """Returns the name that the ratio of a latency to the dense model's has in columns and files."""
    return f"latency_ratio_{key.text}"


def dense_point(run: Run, split: str) -> Point:
    """Returns the point of the dense model, all of whose ratios are 1 by definition."""
    costs = {cost.key: 1.0 for cost in costs_of(run.record.baseline.measurement)}
    return Point("dense", "none", 0, "baseline", costs, _quality(run.record.baseline.measurement, split))


def points_of(run: Run, split: str) -> list[Point]:
    """Returns one point for each step after the baseline; the last one is the result of the run."""
    dense, family = run.record.baseline.measurement, run.record.recipe.family
    return [
        Point(
            run.label, family, step, entry.stage, _ratios(entry.measurement, dense), _quality(entry.measurement, split)
        )
        for step, entry in enumerate(run.record.steps)
        if step
    ]


def _ratios(now: Measurement, dense: Measurement) -> dict[str, float]:
    macs = now.macs.ratio_to(dense.macs)
    fixed = {"params_ratio": now.num_params / dense.num_params} | ({} if macs is None else {"macs_ratio": macs})
    timed = [(cost.key, now.latency_at(cost.timing)) for cost in costs_of(dense) if cost.timing]
    return fixed | {key: latency.ratio for key, latency in timed if latency}


def _quality(measurement: Measurement, split: str) -> float:
    quality = measurement.quality_on(split)
    assert quality is not None, "checked on loading"
    return quality.value


def _check_complete(run: Run, split: str) -> None:
    done, asked = len(run.record.steps) - 1, len(run.record.recipe.stages)
    if asked == 0:
        raise RecordError(f"{run.folder}: the recipe has no stages, so there is nothing to compare with dense")
    if not run.record.finished or done < asked:
        resume = f"continue it with `python -m toolkit.apply RECIPE --out {run.folder} --resume`"
        raise RecordError(f"{run.folder}: not finished ({max(done, 0)} of {asked} stages are done); {resume}")
    timings = set(run.record.baseline.measurement.latency_keys)
    is_partial = run.record.baseline.measurement.macs.is_partial
    for number, step in enumerate(run.record.steps):
        if step.measurement.quality_on(split) is None:
            splits = ", ".join(quality.split for quality in step.measurement.quality) or "none"
            raise RecordError(f"{run.folder}: step {number} has no quality on split {split!r}; it has: {splits}")
        if set(step.measurement.latency_keys) != timings:
            raise RecordError(f"{run.folder}: step {number} was not timed on the same devices and batch sizes as dense")
        if step.measurement.macs.is_partial and not is_partial:
            raise RecordError(f"{run.folder}: the MACs of step {number} are a partial count and those of dense are not")


def _unlike(first: Run, second: Run, split: str) -> list[str]:
    """Returns all differences that keep two runs from being compared, one line each."""
    left, right = first.record.baseline.measurement, second.record.baseline.measurement
    lines = differences(first.record, second.record)
    pairs = {
        "MACs (multiply-adds) of the dense model": (left.macs.total, right.macs.total),
        "parameters of the dense model": (left.num_params, right.num_params),
        "settings of the latency": (timing_settings(left.latency), timing_settings(right.latency)),
        "metric": (_metric(left, split), _metric(right, split)),
    }
    lines += [f"{what}: {a} against {b}" for what, (a, b) in pairs.items() if a != b]
    dense = _quality(left, split), _quality(right, split)
    if abs(dense[0] - dense[1]) > SAME_QUALITY:
        lines.append(f"quality of the dense model ({split}): {dense[0]:.4f} against {dense[1]:.4f}")
    return [f"{first.folder} and {second.folder} cannot be compared: {line}" for line in lines]


def timing_settings(latency: Sequence[Latency]) -> list[str]:
    """Returns the settings that two runs must share, one line for each latency."""
    return [f"{timing.key.words} threads {timing.threads} {timing.dtype}" for timing in latency]


def _metric(measurement: Measurement, split: str) -> str:
    quality = measurement.quality_on(split)
    assert quality is not None, "checked on loading"
    return f"{quality.metric} on {quality.num_examples} examples"
