"""The verdict: what a run gained and lost in one line, at its end and on top of its page."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from reports.run.closing import show_closing
from reports.run.page import write_page
from reports.run.verdict import verdict
from tests.helpers.example_records import depth_record, measurement, record
from toolkit.base.console import Console
from toolkit.measure.results import Quality
from toolkit.record.run import RunRecord, StepRecord
from toolkit.stages.block_drop.settings import BlockDrop


def made(before: Quality, after: Quality, **changes: Any) -> RunRecord:
    """A run of one stage with these qualities, at 0.46 of the latency and 0.5 of the multiply-adds."""
    dense, cut = measurement(1.0, 1.0, 0.5), measurement(0.5, 0.46, 0.5)
    latency = tuple(
        each.model_copy(update={"samples_s": tuple(0.46 * time_s for time_s in each.dense_samples_s)})
        for each in cut.latency
    )
    steps = (
        StepRecord(
            stage="baseline", detail={}, seconds=1.0, measurement=dense.model_copy(update={"quality": (before,)})
        ),
        StepRecord(
            stage="block_drop",
            detail={},
            seconds=1.0,
            measurement=cut.model_copy(update={"quality": (after,), "latency": latency} | changes.pop("cut", {})),
        ),
    )
    return record("r", (BlockDrop(num_blocks=1, criterion="random"),), (), steps=steps, **changes)


def accuracy(value: float, margin: float | None, split: str = "test") -> Quality:
    interval = None if margin is None else (value - margin, value + margin)
    return Quality(metric="accuracy", split=split, value=value, num_examples=300, interval=interval)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (accuracy(0.7, 0.03), accuracy(0.72, 0.03), "+2.0 points of accuracy, within the noise of 300 test examples"),
        (accuracy(0.7, 0.03), accuracy(0.65, 0.03), "-5.0 points of accuracy, beyond the noise of 300 test examples"),
        (accuracy(0.7, 0.03), accuracy(0.74, 0.03), "+4.0 points of accuracy, within the noise of 300 test examples"),
        (accuracy(0.7, 0.03), accuracy(0.6999, 0.03), "+0.0 points of accuracy, within the noise of 300 test examples"),
        (accuracy(0.7, None), accuracy(0.6, 0.1), "-10.0 points of accuracy, on 300 test examples, whose noise is not"),
        (
            accuracy(0.7, 0.1, "validation"),
            accuracy(0.7, 0.1, "validation"),
            "+0.0 points of accuracy, within the noise of 300 validation examples",
        ),
        (
            Quality(metric="score", split="test", value=21.5, num_examples=9),
            Quality(metric="score", split="test", value=20.0, num_examples=9),
            "-1.5 score, on 9 test examples, whose noise is not known",
        ),
    ],
)
def test_what_was_gained_and_lost(before: Quality, after: Quality, words: str) -> None:
    line = verdict(made(before, after))
    assert line is not None and line.startswith(f"0.46 of the latency, {words}")


def test_without_latency_it_is_of_the_multiply_adds() -> None:
    line = verdict(made(accuracy(0.7, 0.1), accuracy(0.7, 0.1), cut={"latency": ()}))
    assert line is not None and line.startswith("0.50 of the multiply-adds, +0.0 points")


def test_a_latency_of_a_busy_machine_is_not_to_be_quoted() -> None:
    run = made(accuracy(0.7, 0.1), accuracy(0.7, 0.1))
    baseline = run.baseline.measurement
    busy = tuple(
        each.model_copy(update={"samples_s": tuple(1.2 * time_s for time_s in each.dense_samples_s)})
        for each in baseline.latency
    )
    first = run.baseline.model_copy(update={"measurement": baseline.model_copy(update={"latency": busy})})
    line = verdict(run.model_copy(update={"steps": (first, *run.steps[1:])}))
    assert line is not None and line.startswith("0.46 of the latency (not to be quoted: the machine was busy), +0.0")


def test_an_unfinished_run_says_how_far_it_came() -> None:
    line = verdict(made(accuracy(0.7, 0.1), accuracy(0.7, 0.1), finished=False))
    assert line is not None and line.startswith("after 1 of 1 stages: 0.46 of the latency")
    assert verdict(record("r", (), ())) is None


def test_it_ends_the_run_and_heads_the_page(tmp_path: Path) -> None:
    run = depth_record()
    line = verdict(run)
    stream = io.StringIO()
    show_closing(run, Console(stream, terminal=False))
    assert line is not None and stream.getvalue().endswith(f"\n\nverdict: {line}\n")
    run.save(tmp_path)
    page = write_page(tmp_path).read_text()
    assert line in page and page.index(line) < page.index("What was done")
