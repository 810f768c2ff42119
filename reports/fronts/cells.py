"""Reads the cells of a planner's sweep, `DIR/VARIANT/seedN/`, as plain data: measured, infeasible or not run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from reports.comparison.runs import Cost, Run, costs_of, latency_column, points_of
from reports.fronts.checks import SPLITS, check_alike, check_complete
from toolkit.base.errors import RecordError
from toolkit.record.plan import INFEASIBLE_FILE, PLAN_FILE, PlanRecord, Rank, load_plan_record
from toolkit.record.run import FAILED_FILE, RUN_FILE, RunRecord, load_record
from toolkit.stages.channel_prune.settings import Heads

Axis = Literal["depth", "width", "combined"]

AXES: Final[tuple[Axis, ...]] = ("depth", "width", "combined")

_PLANNED = re.compile(r"(depth|width|combined)_(\d+(?:\.\d+)?)")
_CELL = re.compile(r"seed(\d+)")


@dataclass(frozen=True)
class Place:
    """Names a cell; a control has no family and an empty budget."""

    variant: str
    seed: int
    family: Axis | None
    budget: str

    @property
    def name(self) -> str:
        """Returns the folder of the cell below that of the sweep, `VARIANT/seedN`."""
        return f"{self.variant}/seed{self.seed}"


@dataclass(frozen=True)
class FrontCell:
    """Describes a measured cell.

    costs: ratios to the dense model by `Cost.key`.
    quality: the values of the metric by split.
    dense_quality: the values of the metric of the dense model, by split.
    predicted: the planner's predictions of `costs`; empty for a control.
    dropped: the dropped blocks.
    widths: the width of every group that is cut.
    bypassed: for each dropped block that a bypass replaces, the rank of the bypass.
    """

    place: Place
    costs: Mapping[str, float]
    quality: Mapping[str, float]
    dense_quality: Mapping[str, float]
    predicted: Mapping[str, float] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    widths: Mapping[str, int | Heads] = field(default_factory=dict)
    bypassed: Mapping[str, Rank] = field(default_factory=dict)

    @property
    def change(self) -> float:
        """Returns the test quality minus that of the dense model of the same seed."""
        return self.quality["test"] - self.dense_quality["test"]


@dataclass(frozen=True)
class Gap:
    """Names a cell without a measurement, and says why there is none."""

    place: Place
    reason: str


@dataclass(frozen=True)
class Fronts:
    """Holds a whole sweep.

    metric: the name of the task's metric.
    settings: the device, machine and data that all cells share, in words.
    costs: the costs that all cells have; empty while nothing is measured.
    """

    name: str
    metric: str
    settings: str
    costs: tuple[Cost, ...]
    cells: tuple[FrontCell, ...]
    infeasible: tuple[Gap, ...]
    not_run: tuple[Gap, ...]

    @property
    def places(self) -> list[Place]:
        """Returns the places of all cells."""
        return [cell.place for cell in self.cells] + [gap.place for gap in (*self.infeasible, *self.not_run)]


@dataclass(frozen=True)
class _State:
    """Holds what was found in the folder of a cell: a finished record, or the reason why there is none."""

    variant: str
    seed: int
    note: PlanRecord | None = None
    record: RunRecord | None = None
    infeasible: str = ""
    not_run: str = ""


def holds_fronts(folder: Path) -> bool:
    """Returns whether the folder is that of a sweep and not that of a run."""
    return not (folder / RUN_FILE).exists() and bool(_cells_in(folder))


def load_fronts(folder: Path, expected: Sequence[str] = ()) -> Fronts:
    """Returns all cells of the sweep in a folder; every variant is expected for every seed that any variant has.

    expected: names of cells (`VARIANT/seedN`) that may not have been started.

    Raises:
        RecordError: no cell is planned, a cell is damaged or contradicts itself, or cells were not measured alike.
    """
    names = {*_cells_in(folder), *map(_parsed, expected)}
    seeds, variants = sorted({seed for _, seed in names}), sorted({variant for variant, _ in names})
    states = [_state(folder, variant, seed) for variant in variants for seed in seeds]
    if not any(state.note or state.infeasible for state in states):
        raise RecordError(
            f"{folder}: no cell has {PLAN_FILE} or {INFEASIBLE_FILE}; give the folder of a sweep with `plans`"
        )
    records = [(f"{state.variant}/seed{state.seed}", state.record) for state in states if state.record]
    check_alike(folder, records)
    budgets = _budgets(folder, states)
    first = records[0][1] if records else None
    return Fronts(
        name=folder.resolve().name,
        metric=_metric(first),
        settings=_settings(first),
        costs=tuple(costs_of(first.baseline.measurement)) if first else (),
        cells=tuple(_measured(folder, state, state.record, budgets) for state in states if state.record),
        infeasible=tuple(Gap(_place(state, budgets), state.infeasible) for state in states if state.infeasible),
        not_run=tuple(Gap(_place(state, budgets), state.not_run) for state in states if state.not_run),
    )


def _cells_in(folder: Path) -> list[tuple[str, int]]:
    paths = [path for path in folder.glob("*/seed*") if path.is_dir() and _CELL.fullmatch(path.name)]
    return [(path.parent.name, int(path.name.removeprefix("seed"))) for path in paths]


def _parsed(cell: str) -> tuple[str, int]:
    variant, _, seed = cell.rpartition("/seed")
    return variant, int(seed)


def _state(folder: Path, variant: str, seed: int) -> _State:
    cell = folder / variant / f"seed{seed}"
    planned, has_plan, has_run = _PLANNED.fullmatch(variant), (cell / PLAN_FILE).exists(), (cell / RUN_FILE).exists()
    if (cell / INFEASIBLE_FILE).exists():
        if has_plan or has_run or planned is None:
            wrong = "beside a plan or a run" if planned else "in a cell that is not named FAMILY_BUDGET"
            raise RecordError(f"{cell}: holds {INFEASIBLE_FILE} {wrong}; delete the file that is out of date")
        reason = (cell / INFEASIBLE_FILE).read_text(encoding="utf-8").strip()
        return _State(variant, seed, infeasible=reason or "no reason given")
    note = load_plan_record(cell) if has_plan else None
    if note and planned and note.family != planned[1]:
        raise RecordError(
            f"{cell / PLAN_FILE}: its family is {note.family}, but its folder is {variant}; move it to its own folder"
        )
    record = load_record(cell) if has_run else None
    if record is None or not record.finished:
        return _State(variant, seed, note, not_run=_why_not_run(cell, note, record))
    if planned and note is None:
        raise RecordError(f"{cell}: the run of this planned variant is finished, but {PLAN_FILE} is missing")
    check_complete(cell, record, seed)
    return _State(variant, seed, note, record)


def _why_not_run(cell: Path, note: PlanRecord | None, record: RunRecord | None) -> str:
    if (cell / FAILED_FILE).exists():
        return f"failed: {(cell / FAILED_FILE).read_text(encoding='utf-8').strip()}"
    if record is not None:
        return f"stopped: {max(len(record.steps) - 1, 0)} of {len(record.recipe.stages)} stages are done"
    return "planned, but not begun" if note else "not begun"


def _budgets(folder: Path, states: Sequence[_State]) -> dict[str, str]:
    """Returns the budget that each number in variants' names stands for, such as `{"0.5": "latency=0.5"}`."""
    budgets: dict[str, str] = {}
    for state in states:
        if state.note and (planned := _PLANNED.fullmatch(state.variant)):
            known = budgets.setdefault(planned[2], state.note.budget)
            if known != state.note.budget:
                cell = folder / state.variant / f"seed{state.seed}"
                raise RecordError(
                    f"{cell}: is planned for {state.note.budget}, but another cell named {planned[2]} for {known}"
                )
    return budgets


def _place(state: _State, budgets: Mapping[str, str]) -> Place:
    if state.note:
        return Place(state.variant, state.seed, state.note.family, state.note.budget)
    planned = _PLANNED.fullmatch(state.variant)
    if planned is None:
        return Place(state.variant, state.seed, None, "")
    family = next(axis for axis in AXES if axis == planned[1])
    return Place(state.variant, state.seed, family, budgets.get(planned[2], planned[2]))


def _measured(folder: Path, state: _State, record: RunRecord, budgets: Mapping[str, str]) -> FrontCell:
    place, note = _place(state, budgets), state.note
    ends = record.baseline.measurement, record.steps[-1].measurement
    dense, now = ({split: measured.quality_on(split) for split in SPLITS} for measured in ends)
    run = Run(place.name, folder / state.variant / f"seed{state.seed}", record)
    return FrontCell(
        place=place,
        costs=points_of(run, "test")[-1].costs,
        quality={split: quality.value for split, quality in now.items() if quality},
        dense_quality={split: quality.value for split, quality in dense.items() if quality},
        predicted=_predicted(note, record) if note else {},
        dropped=note.dropped if note else (),
        widths=note.widths if note else {},
        bypassed=note.bypassed if note else {},
    )


def _predicted(note: PlanRecord, record: RunRecord) -> dict[str, float]:
    """Returns predictions by `Cost.key`; a latency predicted for other threads than measured has another key."""
    threads = "" if note.threads == record.recipe.measure.threads else f"_{note.threads}threads"
    latency = {f"{latency_column(key)}{threads}": ratio for key, ratio in note.predicted.latency_ratio.items()}
    macs = {} if note.predicted.macs_ratio is None else {"macs_ratio": note.predicted.macs_ratio}
    return macs | {"params_ratio": note.predicted.params_ratio} | latency


def _metric(record: RunRecord | None) -> str:
    quality = record.baseline.measurement.quality_on("test") if record else None
    return quality.metric if quality else "quality"


def _settings(record: RunRecord | None) -> str:
    if record is None:
        return "Nothing is measured yet."
    environment, recipe = record.environment, record.recipe
    where = f"{environment.processor}, GPU: {environment.gpu or 'none'}, {recipe.measure.threads} threads"
    quality = record.baseline.measurement.quality_on("test")
    examples = f"{quality.num_examples} test examples" if quality else ""
    other = "" if recipe.device == "cuda" else " CUDA: not measured."
    return f"Device {recipe.device} ({where}), torch {environment.packages.get('torch', 'unknown')}, {examples}.{other}"
