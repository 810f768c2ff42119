"""Numbers, names and stages in the words that a reader meets on pages and in figures."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.base.words import plain
from toolkit.measure.results import Macs, MeasurementKey
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
    """`17_234_567` -> `17.23 M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def macs_words(macs: Macs) -> str:
    """Returns a count of multiply-adds, and that it is a partial one where an operator has no count."""
    return f"{count(macs.total)} (partial count)" if macs.is_partial else count(macs.total)


def percent(ratio: float) -> str:
    """A measured share, always with one decimal."""
    return f"{100 * ratio:.1f} %"


def mebibytes(number: int) -> str:
    """`5_400_000` -> `5.1 MiB`."""
    return f"{number / 2**20:.1f} MiB"


def milliseconds(seconds: float) -> str:
    """Three significant digits, without the unit."""
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def change(difference: float) -> str:
    """With its sign."""
    return f"{difference:+.3f}".replace("-", "−")


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def short_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """What dotted names share, with `*` for the rest, and each one's own part.

    `["blocks.0.fc1", "blocks.7.fc1"]` -> `("blocks.*.fc1", ["0", "7"])`.
    """
    parts = [name.split(".") for name in names]
    room = min((len(part) for part in parts), default=1) - 1
    if len(set(names)) < 2 or room < 1:
        return "", [plain(name) for name in names]
    head = next((i for i in range(room) if len({part[i] for part in parts}) > 1), room)
    tail = next((i for i in range(room - head) if len({part[-1 - i] for part in parts}) > 1), room - head)
    own = [plain(".".join(part[head : len(part) - tail])) for part in parts]
    return plain(".".join([*parts[0][:head], "*", *parts[0][len(parts[0]) - tail :]]), 60), own


def timed_at(key: MeasurementKey) -> str:
    """Returns what a latency is of, such as `cpu, batch 16`."""
    return f"{key.where}, batch {key.batch_size}"


def step_names(steps: Sequence[StepRecord]) -> list[str]:
    """`0 dense`, `1 block_drop`, ..."""
    return [f"{index} {plain(step.stage, 20) if index else 'dense'}" for index, step in enumerate(steps)]
