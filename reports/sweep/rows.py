"""Gathers the runs of a sweep: each variant after each of its stages, with one value per seed."""

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
    passes: list[float] = field(default_factory=list)
    as_naive: list[bool] = field(default_factory=list)


def sweep_rows(records: dict[str, RunRecord]) -> list[Row]:
    """Returns rows in the order of the cells: the dense model once, then every stage of every variant.

    records: the finished runs by the name of the cell (`variant/seedN`).
    """
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
    rounds = [turn for past in record.steps[: index + 1] for turn in past.detail.get("rounds", [])]
    counts = [turn["block_passes"] for turn in rounds if "block_passes" in turn]
    if counts:
        row.passes.append(sum(count["executed"] for count in counts) / sum(count["naive"] for count in counts))
    row.as_naive += [turn["naive_choice"] == turn["dropped"] for turn in rounds if "naive_choice" in turn]
    num_blocks = _blocks_left(record, index)
    if num_blocks is not None:
        row.blocks.append(num_blocks)
    for split, values in (("validation", row.validation), ("test", row.test)):
        quality = now.quality_on(split)
        if quality is not None:
            values.append(quality.value)
    before, after = dense.quality_on("test"), now.quality_on("test")
    if before is not None and after is not None:
        row.change.append(after.value - before.value)


def _blocks_left(record: RunRecord, index: int) -> int | None:
    """Returns the number of blocks that are left after step `index`; None if no stage so far recorded them."""
    for step in reversed(record.steps[: index + 1]):
        if isinstance(step.detail.get("remaining"), list):
            return len(step.detail["remaining"])
    return None
