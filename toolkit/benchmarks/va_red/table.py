"""Writes the tables of the benchmark: the rows with their spread over seeds, the work by group, and the comparison."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from toolkit.base.files import write_atomically
from toolkit.benchmarks.va_red.cells import DynamicCell, load_cells
from toolkit.benchmarks.va_red.rows import STUDIES, WORDS, Study

CONTROLS = ("shuffled", "random", "constant", "constant_free", "channel_prune", "oracle")

HEADER = (
    "Every figure is the mean over seeds, with the least and the largest in brackets. MACs are shares of the dense "
    "model's, over the validation examples; p10 and p90 are those of one seed's examples, averaged over seeds. Latency "
    "is the ratio to the dense model, timed in turns."
)


def write_tables(out: Path) -> Path:
    """Writes `table.md` from all cells in a folder, and returns its path."""
    cells = load_cells(out)
    parts = ["# VA-RED^2 and its controls\n", HEADER + "\n"]
    for study in STUDIES.values():
        own = [cell for cell in cells if cell.task in study.tasks]
        if own:
            parts += [f"## {study.name}\n", *_study(study, own)]
    path = out / "table.md"
    write_atomically(path, "\n".join(parts))
    return path


def _study(study: Study, cells: Sequence[DynamicCell]) -> list[str]:
    rows = [(row, level, _of(cells, row, level)) for row, level in study.rows()]
    rows = [(row, level, found) for row, level, found in rows if found]
    lines = [_line(row, level, found) for row, level, found in rows]
    batches = study.measure.batch_sizes
    head = ["row", "seeds", "test", "validation", "MACs", "p10 to p90", *(f"latency, batch {size}" for size in batches)]
    parts = [_table(head, [_padded(line, len(head)) for line in lines])]
    groups = [(row, level, found) for row, level, found in rows if found[0].of_inputs and found[0].of_inputs.by_group]
    if groups:
        first = groups[0][2][0].of_inputs
        assert first is not None
        names = list(first.by_group)
        body = [[_name(row, level), *_by_group(found, names)] for row, level, found in groups]
        parts += ["MACs by true group of the validation examples:\n", _table(["row", *names], body)]
    differences = [line for level in study.weights for line in _differences(cells, level)]
    of_rule = _difference(cells, "rule_oracle", "rule_constant", "")
    differences += [of_rule] if of_rule else []
    if differences:
        parts += [
            "One row minus another on test, over the seeds:\n",
            _table(["row", "minus", "mean", "least", "largest", "ahead in every seed"], differences),
        ]
    return parts


def _of(cells: Iterable[DynamicCell], row: str, level: str) -> list[DynamicCell]:
    return [cell for cell in cells if (cell.row, cell.level) == (row, level) and not cell.reason]


def _name(row: str, level: str) -> str:
    return f"{WORDS[row]}{f' ({level})' if level else ''}"


def _line(row: str, level: str, cells: Sequence[DynamicCell]) -> list[str]:
    spread = ""
    if cells[0].of_inputs is not None:
        low, high = (statistics.fmean(bound(cell) / cell.dense_macs for cell in cells) for bound in (_p10, _p90))
        spread = f"{low:.2f} to {high:.2f}"
    timed = [cell for cell in cells if cell.latency]
    latencies = [
        _span([cell.latency[at].ratio for cell in timed], 2) for at in range(len(timed[0].latency) if timed else 0)
    ]
    return [
        _name(row, level),
        str(len(cells)),
        _span([cell.value("test") for cell in cells]),
        _span([cell.value("validation") for cell in cells]),
        _span([cell.macs_ratio for cell in cells]),
        spread,
        *latencies,
    ]


def _p10(cell: DynamicCell) -> float:
    assert cell.of_inputs is not None
    return cell.of_inputs.p10


def _p90(cell: DynamicCell) -> float:
    assert cell.of_inputs is not None
    return cell.of_inputs.p90


def _by_group(cells: Sequence[DynamicCell], names: Sequence[str]) -> list[str]:
    def share(name: str) -> Callable[[DynamicCell], float]:
        return lambda cell: (cell.of_inputs.by_group[name] if cell.of_inputs else 0.0) / cell.dense_macs

    return [f"{statistics.fmean(map(share(name), cells)):.3f}" for name in names]


def _differences(cells: Sequence[DynamicCell], level: str) -> list[list[str]]:
    pairs = [("policy", control, level) for control in CONTROLS]
    lines = [_difference(cells, *pair) for pair in pairs]
    return [line for line in lines if line]


def _difference(cells: Sequence[DynamicCell], row: str, control: str, level: str) -> list[str]:
    """Returns one row minus another on test over the seeds that both have; nothing if there is none."""
    values, others = ({cell.seed: cell.value("test") for cell in _of(cells, name, level)} for name in (row, control))
    pairs = [values[seed] - others[seed] for seed in sorted(values.keys() & others.keys())]
    if not pairs:
        return []
    numbers = [f"{value:+.3f}" for value in (statistics.fmean(pairs), min(pairs), max(pairs))]
    return [_name(row, level), WORDS[control], *numbers, "yes" if min(pairs) > 0 else "no"]


def _span(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return ""
    mean, least, largest = (f"{value:.{digits}f}" for value in (statistics.fmean(values), min(values), max(values)))
    return mean if least == largest else f"{mean} ({least} to {largest})"


def _padded(line: list[str], width: int) -> list[str]:
    return [*line, *[""] * (width - len(line))]


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
