"""Says in one line what a run gained and lost. Nothing here imports torch."""

from __future__ import annotations

import math

from toolkit.measure.results import Measurement, Quality
from toolkit.record.run import RunRecord

MOST_FROM_ONE = 0.05  # of the ratio of the dense model to itself; 0.01 to 0.02 is usual on an idle machine


def verdict(record: RunRecord) -> str | None:
    """Returns a line such as `0.46 of the latency, +2.0 points of accuracy, within the noise of 300 test examples`.

    Costs are shares of the dense model's: the latency where a report shows one, or else the multiply-adds. The quality
    is that of the test split, or else of the first one that was measured. Returns None where no stage is done.
    """
    if len(record.steps) < 2:
        return None
    dense, last = record.baseline.measurement, record.steps[-1].measurement
    so_far = "" if record.finished else f"after {len(record.steps) - 1} of {len(record.recipe.stages)} stages: "
    return so_far + ", ".join([_cost(record, dense, last), *_quality(shown_quality(dense), last)])


def shown_quality(measurement: Measurement) -> Quality | None:
    """Returns the quality on the test split, or else on the first split that was measured."""
    return measurement.quality_on("test") or next(iter(measurement.quality), None)


def _cost(record: RunRecord, dense: Measurement, last: Measurement) -> str:
    latency = last.latency_at(record.recipe.latency_shown) or next(iter(last.latency), None)
    if latency is not None:
        to_itself = dense.latency_at(latency.key)
        is_steady = to_itself is None or abs(to_itself.ratio - 1) <= MOST_FROM_ONE
        return f"{latency.ratio:.2f} of the latency{'' if is_steady else ' (not to be quoted: the machine was busy)'}"
    share = last.macs.ratio_to(dense.macs)
    if share is not None:
        return f"{share:.2f} of the multiply-adds"
    return f"{last.num_params / dense.num_params:.2f} of the parameters"


def _quality(before: Quality | None, last: Measurement) -> list[str]:
    """Returns the change of the quality, and whether it can be told from chance; nothing where it was not measured."""
    now = None if before is None else last.quality_on(before.split)
    if before is None or now is None:
        return []
    difference = now.value - before.value
    if all(0 <= quality.value <= 1 for quality in (before, now)):
        change = f"{100 * difference:+.1f} points of {before.metric}".replace("-0.0", "+0.0")
    else:
        change = f"{difference:+.3g} {before.metric}"
    examples = f"{before.num_examples} {before.split} examples"
    margin = _margin(before, now)
    if margin is None:
        return [change, f"on {examples}, whose noise is not known"]
    return [change, f"{'within' if abs(difference) <= margin else 'beyond'} the noise of {examples}"]


def _margin(before: Quality, now: Quality) -> float | None:
    """Returns the half width of the 95 % interval of the difference of two figures; None if one has no interval.

    It is that of independent figures. The two are of the same examples, which mostly makes the true interval narrower,
    so that what is called beyond the noise is so.
    """
    if before.interval is None or now.interval is None:
        return None
    return math.hypot(*((high - low) / 2 for low, high in (before.interval, now.interval)))
