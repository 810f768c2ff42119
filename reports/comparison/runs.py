"""Loads the runs to compare, refuses unlike ones, and turns them into points."""

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

SAME_QUALITY = 1e-3  # of the dense model; CPU and CUDA sums differ by less

ADVICE = (
    "Points are only comparable if all runs share the task, the trained model, the machine, `device` and `measure`: "
    "make the odd ones again, `python -m toolkit.apply RECIPE --out NEW_DIR`, or leave them out."
)


@dataclass(frozen=True)
class Run:
    """`label` is the folder's name, or its path where names clash."""

    label: str
    folder: Path
    record: RunRecord


@dataclass(frozen=True)
class Cost:
    """A cost by which runs are compared: `key` in points and file names, `words` on the axis; `timing` if a latency."""

    key: str
    words: str
    timing: MeasurementKey | None = None


def load_runs(folders: Sequence[Path], split: str) -> list[Run]:
    """Read and check all runs.

    Raises:
        RecordError: a folder given twice or without a readable record, an unfinished run, or runs that are unlike.
    """
    resolved = [folder.resolve() for folder in folders]
    if twice := {str(path) for path in resolved if resolved.count(path) > 1}:
        raise RecordError(f"given more than once: {', '.join(sorted(twice))}")
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
    """Returns the name of a latency's ratio to the dense model's in columns and files."""
    return f"latency_ratio_{key.text}"


def dense_point(run: Run, split: str) -> Point:
    """The dense model: every ratio is 1 by definition."""
    costs = {cost.key: 1.0 for cost in costs_of(run.record.baseline.measurement)}
    return Point("dense", "none", 0, "baseline", costs, _quality(run.record.baseline.measurement, split))


def points_of(run: Run, split: str) -> list[Point]:
    """One point per step after the baseline; the last one is the run's result."""
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
    """All that keeps two runs from being compared, one line each."""
    one, other = first.record.baseline.measurement, second.record.baseline.measurement
    found = differences(first.record, second.record)
    pairs = {
        "MACs (multiply-adds) of the dense model": (one.macs.total, other.macs.total),
        "parameters of the dense model": (one.num_params, other.num_params),
        "settings of the latency": (timing_settings(one.latency), timing_settings(other.latency)),
        "metric": (_metric(one, split), _metric(other, split)),
    }
    found += [f"{what}: {a} against {b}" for what, (a, b) in pairs.items() if a != b]
    dense = _quality(one, split), _quality(other, split)
    if abs(dense[0] - dense[1]) > SAME_QUALITY:
        found.append(f"quality of the dense model ({split}): {dense[0]:.4f} against {dense[1]:.4f}")
    return [f"{first.folder} and {second.folder} cannot be compared: {line}" for line in found]


def timing_settings(latency: Sequence[Latency]) -> list[str]:
    """Returns what two runs must have timed alike, a line for each latency."""
    return [f"{one.key.words} threads {one.threads} {one.dtype}" for one in latency]


def _metric(measurement: Measurement, split: str) -> str:
    quality = measurement.quality_on(split)
    assert quality is not None, "checked on loading"
    return f"{quality.metric} on {quality.num_examples} examples"
