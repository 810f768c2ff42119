"""Writes numbers, names and stages in the words of pages and figures."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.base.words import plain
from toolkit.measure.counted import Macs
from toolkit.measure.results import MeasurementKey
from toolkit.recipe.recipe import Family
from toolkit.record.run import StepRecord

MACS_NOTE = (
    "MACs are multiply-adds of one example: what fvcore calls “FLOPs”. A count of single "
    "floating-point operations would be twice as high."
)

MACS_AXIS = "MACs = multiply-adds (fvcore’s “FLOPs”)"

FAMILY_WORDS: dict[Family, str] = {
    "depth": "depth only",
    "width": "width only",
    "combined": "depth and width",
    "dynamic": "input-dependent",
    "none": "no cut",
}


def count(number: int) -> str:
    """Returns a large number with a unit: `17.23 M` for 17,234,567."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def macs_words(macs: Macs) -> str:
    """Returns a count of multiply-adds, and that it is a partial one where an operator has no count."""
    return f"{count(macs.total)} (partial count)" if macs.is_partial else count(macs.total)


def percent(ratio: float) -> str:
    """Returns a measured share (0.25) as a percentage with one decimal (`25.0 %`)."""
    return f"{100 * ratio:.1f} %"


def mebibytes(number: int) -> str:
    """`5_400_000` -> `5.1 MiB`."""
    return f"{number / 2**20:.1f} MiB"


def milliseconds(seconds: float) -> str:
    """Returns seconds as milliseconds with three significant digits, without the unit."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def change(difference: float) -> str:
    """Returns a difference with its sign and three decimals."""
    return f"{difference:+.3f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Returns a duration in seconds, or in minutes from two minutes on."""
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def short_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """Returns the shared part of dotted names, with `*` where they differ, and the part of each name that differs.

    For `["blocks.0.fc1", "blocks.7.fc1"]` these are `("blocks.*.fc1", ["0", "7"])`.
    """
    parts = [name.split(".") for name in names]
    room = min((len(part) for part in parts), default=1) - 1
    if len(set(names)) < 2 or room < 1:
        return "", [plain(name) for name in names]
    head = next((i for i in range(room) if len({part[i] for part in parts}) > 1), room)
    tail = next((i for i in range(room - head) if len({part[-1 - i] for part in parts}) > 1), room - head)
    differing = [plain(".".join(part[head : len(part) - tail])) for part in parts]
    return plain(".".join([*parts[0][:head], "*", *parts[0][len(parts[0]) - tail :]]), 60), differing


def timed_at(key: MeasurementKey) -> str:
    """Returns where and at which batch size a latency was measured, such as `cpu, batch 16`."""
    return f"{key.where}, batch {key.batch_size}"


def step_names(steps: Sequence[StepRecord]) -> list[str]:
    """Returns the names of steps: `0 dense`, `1 block_drop` and so on."""
    return [f"{index} {plain(step.stage, 20) if index else 'dense'}" for index, step in enumerate(steps)]
