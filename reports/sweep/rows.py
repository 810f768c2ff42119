"""The runs of a sweep, gathered: each variant after each of its stages, with one value per seed."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.record.run import RunRecord, StepRecord


@dataclass
class Row:
    """The runs of one variant after one stage; every list has one entry per seed that has the figure."""

    variant: str
    after: str
    num_runs: int = 0
    blocks: list[int] = field(default_factory=list)
    macs: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)  # block passes of all rounds so far, as a share of the naive ones
    as_naive: list[bool] = field(default_factory=list)  # for every round that was verified


def sweep_rows(records: dict[str, RunRecord]) -> list[Row]:
    """Rows in the order of the cells (`variant/seedN`): dense once, then every stage of every variant."""
    rows: dict[tuple[str, int], Row] = {}
    for cell, record in records.items():
        variant = cell.partition("/")[0]
        for index, step in enumerate(record.steps):
            key = (variant if index else "dense", index)
            row = rows.setdefault(key, Row(key[0], f"{index} {step.stage}" if index else ""))
            if index == 0 and variant != next(iter(records)).partition("/")[0]:
                continue  # the dense model is the same for every variant
            _add(row, record, step, index)
    return list(rows.values())


def _add(row: Row, record: RunRecord, step: StepRecord, index: int) -> None:
    now, dense = step.measurement, record.baseline.measurement
    row.num_runs += 1
    macs = now.macs.ratio_to(dense.macs)
    if macs is not None:
        row.macs.append(macs)
    latency = now.latency_at(record.recipe.latency_shown)
    if latency is not None:
        row.latency.append(latency.ratio)
    rounds = [one for past in record.steps[: index + 1] for one in past.detail.get("rounds", [])]
    counts = [one["block_passes"] for one in rounds if "block_passes" in one]
    if counts:
        row.passes.append(sum(count["executed"] for count in counts) / sum(count["naive"] for count in counts))
    row.as_naive += [one["naive_choice"] == one["dropped"] for one in rounds if "naive_choice" in one]
    left = _blocks_left(record, index)
    if left is not None:
        row.blocks.append(left)
    for split, values in (("validation", row.validation), ("test", row.test)):
        found = now.quality_on(split)
        if found is not None:
            values.append(found.value)
    before, after = dense.quality_on("test"), now.quality_on("test")
    if before is not None and after is not None:
        row.change.append(after.value - before.value)


def _blocks_left(record: RunRecord, index: int) -> int | None:
    """How many blocks are left after step `index`; None if no stage of the run has named them."""
    for step in reversed(record.steps[: index + 1]):
        if isinstance(step.detail.get("remaining"), list):
            return len(step.detail["remaining"])
    return None
