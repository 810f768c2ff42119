"""Makes the table at the end of a run, of what every stage gained and lost. Nothing here imports torch."""

from __future__ import annotations

import json
from pathlib import Path

from reports.drawing.words import MACS_NOTE, count, macs_words, mebibytes
from reports.run.verdict import MOST_FROM_ONE, shown_quality, verdict
from toolkit.base.console import Console
from toolkit.measure.counted import percentile
from toolkit.measure.results import Latency, Measurement, MeasurementKey, Quality
from toolkit.record.run import RunRecord, StepRecord

DENSE_NOTE = "In brackets: MACs as a share of the dense (unmodified) model's; metric minus the dense model's."

LATENCY_NOTE = "Latency: median of the ratios to the dense model, timed in turns; below 1 is faster."


def closing_table(record: RunRecord) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns, and the rows of cells.

    There is one row per step, the baseline first, and one column per latency and per peak of the memory.
    """
    dense = record.baseline.measurement
    quality = shown_quality(dense)
    latencies = [f"latency {key.words}" for key in dense.latency_keys]
    metrics = [] if quality is None else [f"{quality.metric} ({quality.split})"]
    memory = [f"peak memory {key.words}" for key in _counted(dense)]
    columns = ["stage", "MACs", "params", *latencies, *memory, *metrics]
    return columns, [_row(index, step, dense, quality) for index, step in enumerate(record.steps)]


def show_closing(record: RunRecord, console: Console) -> None:
    """Prints the closing table of a run, explains its numbers, and ends with the verdict."""
    seconds = sum(step.seconds for step in record.steps)
    stages = "1 stage" if len(record.recipe.stages) == 1 else f"{len(record.recipe.stages)} stages"
    columns, rows = closing_table(record)
    console.line()
    console.table(f"{record.recipe.name}: {stages} in {seconds:.0f} s", columns, rows)
    for note in closing_notes(record):
        console.line(note)
    if (line := verdict(record)) is not None:
        console.line()
        console.line(f"verdict: {line}")


def how_to_load(record: RunRecord, out: Path) -> str:
    """Returns the call that loads the model of a finished run, and the inputs that the model takes.

    The inputs are in the manifest, whose form `toolkit.checkpoint.manifest` defines.
    """
    unmodified = "" if record.recipe.own_task is None else ", the unmodified model"
    inputs = json.loads((out / "model" / "model.json").read_text())["fingerprint"]["inputs"]
    shapes = ", ".join(f"{spec['dtype']} {list(spec['shape'])}" for spec in inputs)
    return f"toolkit.load_model({str(out)!r}{unmodified}) loads it; it takes {shapes}, or more examples at once"


def closing_notes(record: RunRecord) -> list[str]:
    """Returns the lines below the closing table: what its numbers are, and what is wrong with them."""
    return [MACS_NOTE, DENSE_NOTE, LATENCY_NOTE, *slower_steps(record), *unsteady_timings(record)]


def slower_steps(record: RunRecord) -> list[str]:
    """Returns a line for each cut and each latency that it made slower.

    A latency is slower if the first quartile of its ratios to the dense model is above their third quartile before the
    cut.
    """
    lines = []
    for index, (before, step) in enumerate(zip(record.steps, record.steps[1:], strict=False), 1):
        stage = record.recipe.stages[index - 1]
        if stage.axis is None:
            continue
        for now in step.measurement.latency:
            old = before.measurement.latency_at(now.key)
            if old is not None and _quartiles(now)[0] > _quartiles(old)[1]:
                lines.append(
                    f"SLOWER: stage {index} {step.stage} made the model slower on {now.key.where} at batch "
                    f"{now.batch_size}: latency ratio {old.ratio:.3f} -> {now.ratio:.3f}, although it does less; "
                    f"{stage.if_slower}"
                )
    return lines


def unsteady_timings(record: RunRecord) -> list[str]:
    """Returns a line for each latency at which the dense model's ratio to itself is too far from 1."""
    return [
        f"NOT STEADY: the dense model timed against itself has the ratio {latency.ratio:.3f} on {latency.key.where} at "
        f"batch {latency.batch_size}, not 1: the machine is busy or noisy; do not quote the latencies of this run"
        for latency in record.baseline.measurement.latency
        if abs(latency.ratio - 1) > MOST_FROM_ONE
    ]


def _quartiles(latency: Latency) -> tuple[float, float]:
    return percentile(latency.ratios, 25), percentile(latency.ratios, 75)


def _row(index: int, step: StepRecord, dense: Measurement, dense_quality: Quality | None) -> list[str]:
    now = step.measurement
    share = now.macs.ratio_to(dense.macs)
    macs = macs_words(now.macs) if share is None else f"{count(now.macs.total)} ({share:.3f})"
    row = [f"{index} {step.stage}", macs, count(now.num_params)]
    row += [_ratio(now.latency_at(key)) for key in dense.latency_keys]
    row += [_peak(now.latency_at(key)) for key in _counted(dense)]
    if dense_quality is not None:
        quality = now.quality_on(dense_quality.split)
        row.append("-" if quality is None else f"{quality.value:.3f} ({quality.value - dense_quality.value:+.3f})")
    return row


def _counted(dense: Measurement) -> list[MeasurementKey]:
    return [latency.key for latency in dense.latency if latency.peak_bytes is not None]


def _peak(latency: Latency | None) -> str:
    if latency is None or latency.peak_bytes is None or latency.peak_ratio is None:
        return "-"
    return f"{mebibytes(latency.peak_bytes)} ({latency.peak_ratio:.3f})"


def _ratio(latency: Latency | None) -> str:
    return "-" if latency is None else f"{latency.ratio:.3f}"
