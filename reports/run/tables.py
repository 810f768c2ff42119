"""Makes the tables and summary tiles of a run's page."""

from __future__ import annotations

import json
from collections.abc import Sequence

from reports.drawing.html import Safe, el, table, together
from reports.drawing.words import (
    FAMILY_WORDS,
    change,
    count,
    duration,
    macs_words,
    mebibytes,
    milliseconds,
    percent,
    step_names,
    timed_at,
)
from toolkit.measure.counted import Macs
from toolkit.measure.results import Measurement, MeasurementKey
from toolkit.record.run import RunRecord, StepRecord

UNSTABLE_SPREAD = 0.5  # most of (p90 - p10) / median for a stable latency

LONGEST_RAW = 20_000  # most characters of a raw detail on the page


def summary_tiles(record: RunRecord) -> Safe:
    """Returns a few large numbers of the last step, compared with the dense model."""
    dense, last = record.baseline.measurement, record.steps[-1].measurement
    macs = last.macs.ratio_to(dense.macs)
    tiles = [] if macs is None else [(f"{macs:.2f} ×", "MACs (multiply-adds)")]
    tiles += [(f"{last.num_params / dense.num_params:.2f} ×", "parameters")]
    for key in dense.latency_keys:
        if latency := last.latency_at(key):
            tiles.append((f"{latency.ratio:.2f} ×", f"latency, {timed_at(key)}"))
    for quality in last.quality:
        reference = dense.quality_on(quality.split)
        moved = f" ({change(quality.value - reference.value)})" if reference else ""
        tiles.append((f"{quality.value:.3f}", f"{quality.metric}, {quality.split}{moved}"))
    return el("div", *(el("div", el("strong", number), what, class_="tile") for number, what in tiles), class_="tiles")


def stages_table(record: RunRecord) -> Safe:
    """Returns the table with one row for each step; every ratio is to the dense model."""
    dense = record.baseline.measurement
    keys, splits = dense.latency_keys, [quality.split for quality in dense.quality]
    head = ["stage", "MACs (multiply-adds)", "normalisation operations (kept apart)", "parameters"]
    head += [f"latency, {timed_at(key)}: median [p10 .. p90], ms" for key in keys]
    counted = [entry.key for entry in dense.latency if entry.peak_bytes is not None]
    head += [f"peak memory, {timed_at(key)}" for key in counted]
    head += [f"{q.metric}, {q.split}{' [95 % interval]' if q.interval else ''}" for q in dense.quality]
    rows = [
        [
            _two_lines(name, f"took {duration(step.seconds)}"),
            _macs_cell(now.macs, dense.macs),
            count(now.macs.normalisation),
            _two_lines(count(now.num_params), f"{percent(now.num_params / dense.num_params)} of dense"),
            *(_latency_cell(now, key) for key in keys),
            *(_memory_cell(now, key) for key in counted),
            *(_quality_cell(now, dense, split) for split in splits),
        ]
        for name, step in zip(step_names(record.steps), record.steps, strict=True)
        for now in [step.measurement]
    ]
    return table(head, rows)


def quality_details(steps: Sequence[StepRecord]) -> Safe:
    """Returns a table of the parts of the metric, such as mAP at each tIoU, for each split that has parts."""
    tables = []
    for quality in steps[0].measurement.quality:
        names = list(quality.details)
        entries = [step.measurement.quality_on(quality.split) for step in steps]
        rows = [
            [label, *(f"{entry.details[name]:.3f}" if entry and name in entry.details else "–" for name in names)]
            for label, entry in zip(step_names(steps), entries, strict=True)
        ]
        if names:
            tables.append(table(["stage", *names], rows, caption=f"{quality.metric} in parts, {quality.split} split"))
    return together(tables)


def unstable_timings(steps: Sequence[StepRecord]) -> list[str]:
    """Returns the names of the latencies whose samples vary too widely for a reliable ratio."""
    return [
        f"{label}, {timed_at(entry.key)}"
        for label, step in zip(step_names(steps), steps, strict=True)
        for entry in step.measurement.latency
        if entry.percentile_s(90) - entry.percentile_s(10) > UNSTABLE_SPREAD * entry.median_s
    ]


def facts_table(record: RunRecord) -> Safe:
    """Returns the table of the run's task, machine, packages and settings."""
    recipe, environment, measure = record.recipe, record.environment, record.recipe.measure
    facts = [
        ("recipe", recipe.name),
        ("family", FAMILY_WORDS[recipe.family]),
        ("task", recipe.task_name),
        ("seed", str(recipe.seed)),
        ("device", recipe.device),
        ("processor", f"{environment.processor}, {environment.num_cores} cores"),
        ("GPU", environment.gpu or "none"),
        ("system", f"Python {environment.python}, {environment.platform}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))),
        (
            "latency settings",
            f"{measure.threads} threads, {measure.repeats} samples after {measure.warmup} untimed calls",
        ),
    ]
    return table(["what", "value"], facts, text_columns=2)


def uncounted_operators(steps: Sequence[StepRecord]) -> Safe:
    """Returns the table of calls of operators without a count, in the dense model and in the last step's."""
    ends = steps[0].measurement.macs, steps[-1].measurement.macs
    first, last = ({**macs.unknown, **macs.uncounted} for macs in ends)
    names = sorted({*first, *last}, key=lambda name: (-first.get(name, 0), name))
    if not names:
        return el("p", "None: every operator carries a count.")
    head = ["operator", "calls, dense", "calls, last step"]
    rows = [[name, str(first.get(name, 0)), str(last.get(name, 0))] for name in names]
    partial = ends[0] if ends[0].is_partial else ends[1]
    if not partial.is_partial:
        return table(head, rows)
    return together([el("p", f"The count of MACs is partial: {partial.why_partial}."), table(head, rows)])


def counted_operators(steps: Sequence[StepRecord]) -> Safe:
    """Returns the table of multiply-adds by operator, in the dense model and in the last step's."""
    first, last = steps[0].measurement.macs.by_operator, steps[-1].measurement.macs.by_operator
    names = sorted({*first, *last}, key=lambda name: (-first.get(name, 0), name))
    head = ["operator", "MACs (multiply-adds), dense", "MACs (multiply-adds), last step"]
    return table(head, [[name, f"{first.get(name, 0):,}", f"{last.get(name, 0):,}"] for name in names])


def raw_details(steps: Sequence[tuple[int, StepRecord]]) -> Safe:
    """Returns the raw details of steps, cut to a length that a page can hold."""
    return together(
        el("details", el("summary", f"{number} {step.stage}"), el("pre", _cut(json.dumps(step.detail, indent=1))))
        for number, step in steps
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_RAW else f"{text[:LONGEST_RAW]}\n... (cut here; all of it is in run.json)"


def _two_lines(main: str, below: str) -> Safe:
    return together([main, el("small", below)])


def _macs_cell(now: Macs, dense: Macs) -> Safe:
    share = now.ratio_to(dense)
    return Safe(macs_words(now)) if share is None else _two_lines(count(now.total), f"{percent(share)} of dense")


def _latency_cell(now: Measurement, key: MeasurementKey) -> Safe:
    entry = now.latency_at(key)
    if entry is None:
        return Safe("–")
    spread = f"[{milliseconds(entry.percentile_s(10))} .. {milliseconds(entry.percentile_s(90))}]"
    return _two_lines(f"{milliseconds(entry.median_s)} {spread}", f"× {entry.ratio:.2f} of dense")


def _memory_cell(now: Measurement, key: MeasurementKey) -> Safe:
    entry = now.latency_at(key)
    if entry is None or entry.peak_bytes is None or entry.peak_ratio is None:
        return Safe("–")
    return _two_lines(mebibytes(entry.peak_bytes), f"× {entry.peak_ratio:.2f} of dense")


def _quality_cell(now: Measurement, dense: Measurement, split: str) -> Safe:
    entry, reference = now.quality_on(split), dense.quality_on(split)
    if entry is None or reference is None:
        return Safe("–")
    value = f"{entry.value:.3f}"
    if entry.interval is not None:
        value += f" [{entry.interval[0]:.3f} .. {entry.interval[1]:.3f}]"
    moved = "" if now is dense else f"{change(entry.value - reference.value)}, "
    return _two_lines(value, f"{moved}{entry.num_examples} examples")
