"""One model, one device, any number of budgets: plans from what is known of the model."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from toolkit.console import Console
from toolkit.errors import PlanError, UserError
from toolkit.evaluation import evaluate
from toolkit.planner import in_units, solve, stages_of
from toolkit.planning.budget import Budget
from toolkit.planning.costs import Timing
from toolkit.planning.engine import Engine
from toolkit.planning.note import PlanNote, Predicted
from toolkit.planning.numbers import Numbers
from toolkit.planning.search import (
    EVALUATIONS,
    EXAMPLES,
    ORDERS,
    Found,
    Scorer,
    nearest_with_quality,
    num_scores,
    refine,
)
from toolkit.planning.solver import PlanFamily, minimise_cost, minimise_loss
from toolkit.planning.tables import (
    CRITERIA,
    MACS,
    PARAMS,
    SCORED_ON,
    Choice,
    Criterion,
    ScoredOn,
    Tables,
    added_loss,
    cost,
    dropped_in_order,
    latency_of,
    widths_of,
)
from toolkit.recipe import Measure, Recipe
from toolkit.record import Quality
from toolkit.reproducible import reproducible
from toolkit.stage_configs import Stage
from toolkit.task import Task
from toolkit.zoo.config import ZooModel

MOST_TIGHTENINGS = 8
LATENCY_TOLERANCE = 0.02  # of a limit: what a repeated timing may differ by


@dataclass(frozen=True)
class Planned:
    """A plan, and what is to be kept of it."""

    task: str
    choice: Choice
    order: str
    note: PlanNote
    tables: Tables

    def recipe(self, then: Sequence[Stage] = (), *, seed: int = 0, model: ZooModel | None = None) -> Recipe:
        """The plan's stages, and `then`. `model` goes with task `zoo`."""
        note = self.note
        return Recipe(
            name=f"{note.family}-{note.budget.replace('=', '_').replace(',', '-')}",
            task=self.task,
            seed=seed,
            device="cuda" if note.device == "cuda" else "cpu",
            model=model,
            stages=(*stages_of(self.tables, self.choice, self.order), *then),
            measure=Measure(batch_sizes=tuple(note.predicted.latency_ratio), threads=note.threads),
        )


@dataclass(frozen=True)
class Session:
    """Makes plans."""

    numbers: Numbers

    def plan(
        self, budget: Budget, family: PlanFamily, evaluations: int = EVALUATIONS, *, timed: bool = True, seed: int = 0
    ) -> Planned:
        """The best plan that was found within the budget.

        `evaluations` plans are scored end to end, six times as many for the combined family, which begins with the
        others. With 0 the tables alone decide. Otherwise, and if it is to be `timed`, a plan whose latency is limited
        is timed as a whole; where it misses its limit the search goes on below it.

        Raises:
            PlanError: no plan of the family holds the limits, or none keeps the quality that was asked for.
        """
        started, passes = time.perf_counter(), self._passes
        tables = self.numbers.tables
        solve(tables, budget, family, self._dense_s(budget))  # says what is feasible
        scorer = Scorer(self.numbers.score)
        with reproducible(self.numbers.timing.device):
            found, counts = self._within(budget, family, scorer, evaluations, timed and evaluations > 0, seed)
            self._check_quality(found, budget, family)
        choice = found.choice
        note = PlanNote(
            family=family,
            budget=str(budget),
            device=self.numbers.timing.device.type,
            batch_size=budget.batch_size,
            threads=self.numbers.timing.threads,
            order=found.order,
            criterion=self.numbers.criterion,
            scored_on=self.numbers.scored_on,
            dropped=tuple(dropped_in_order(tables, choice)),
            widths=widths_of(tables, choice),
            predicted=Predicted(
                macs_ratio=counts[MACS],
                params_ratio=counts[PARAMS],
                latency_ratio={
                    size: cost(tables, choice, latency_of(size)) for size in self.numbers.timing.batch_sizes
                },
            ),
            measured_latency_ratio={
                size: counts[key] for size in self.numbers.timing.batch_sizes if (key := latency_of(size)) in counts
            },
            dense_loss=tables.dense_loss,
            additive_loss=tables.dense_loss + added_loss(tables, choice),
            scored_loss=found.loss if evaluations else None,
            evaluations=scorer.spent,
            block_passes=self._passes - passes,
            seconds=time.perf_counter() - started,
        )
        return Planned(self.numbers.task.name, choice, found.order, note, tables)

    def _within(
        self, budget: Budget, family: PlanFamily, scorer: Scorer, evaluations: int, timed: bool, seed: int
    ) -> tuple[Found, dict[str, float]]:
        """The plan, and what it was found to take: multiply-adds, parameters and, if `timed`, the limited latencies.

        The tables only predict latency, and counts too where groups share layers: the limits are tightened by what
        they miss until the plan holds.
        """
        asked = budget.ratios(self._dense_s(budget))
        limits = dict(asked)
        for _ in range(MOST_TIGHTENINGS):
            found = self._search(limits, family, scorer, evaluations, seed)
            if found is None:
                break
            counts = self._measured(found.choice, asked, timed)
            over = {
                key: counts[key] - value
                for key, value in asked.items()
                if key in counts and counts[key] > value * (1 + _tolerance(key)) + 1e-6
            }
            if not over:
                return found, counts
            limits = {
                key: cost(self.numbers.tables, found.choice, key) - over[key] if key in over else value
                for key, value in limits.items()
            }
        raise PlanError(
            f"no plan of family {family} was found to hold {budget}; {self._nearest(budget, asked, family, timed)}"
        )

    def _nearest(self, budget: Budget, asked: dict[str, float], family: PlanFamily, timed: bool) -> str:
        """What the plan that costs least on paper takes as a whole."""
        primary = budget.resource_of(budget.primary)
        least = minimise_cost(self.numbers.tables, primary, asked, family)
        assert least is not None  # the tables held plans within the budget
        reached = self._measured(least, asked, timed).get(primary, cost(self.numbers.tables, least, primary))
        others = ", ".join(map(str, budget.limits[1:]))
        nearest = in_units(budget.primary, reached + 5e-4, self._dense_s(budget))
        return f"the nearest feasible budget is about {nearest}{' within ' + others if others else ''}"

    def _measured(self, choice: Choice, asked: Collection[str], timed: bool) -> dict[str, float]:
        return self._counts(choice) | (self._latencies(choice, asked) if timed else {})

    def _latencies(self, choice: Choice, asked: Collection[str]) -> dict[str, float]:
        sizes = [size for size in self.numbers.timing.batch_sizes if latency_of(size) in asked]
        return {latency_of(size): self.numbers.measured_latency(choice, size) for size in sizes}

    def _counts(self, choice: Choice) -> dict[str, float]:
        tables = self.numbers.tables
        if tables.counts_add_up:
            return {key: cost(tables, choice, key) for key in (MACS, PARAMS)}
        return self.numbers.profiler.counts(dropped_in_order(tables, choice), widths_of(tables, choice))

    def _search(
        self, limits: dict[str, float], family: PlanFamily, scorer: Scorer, evaluations: int, seed: int
    ) -> Found | None:
        if not evaluations:
            first = minimise_loss(self.numbers.tables, limits, family)
            return None if first is None else Found(first, ORDERS[0], self.numbers.tables.dense_loss)
        with self.numbers.console.progress(f"scoring plans ({family})", num_scores(family, evaluations)) as bar:

            def score(choice: Choice, order: str) -> float:
                loss = self.numbers.score(choice, order)
                bar.advance()
                return loss

            scorer.score = score
            return refine(self.numbers.tables, limits, family, scorer, evaluations, seed)

    def _dense_s(self, budget: Budget) -> float | None:
        in_ms = any(limit.unit == "ms" for limit in budget.limits)
        return self.numbers.dense_latency_s(budget.batch_size) if in_ms else None

    @property
    def _passes(self) -> float:
        """Block passes so far, over the examples that are scored."""
        engine: Engine | None = vars(self.numbers).get("engine")
        return 0.0 if engine is None else engine.block_passes

    def _check_quality(self, found: Found, budget: Budget, family: PlanFamily) -> None:
        if budget.min_quality is None:
            return
        quality = self._quality(found.choice, found.order)
        if quality.value >= budget.min_quality:
            return
        raise PlanError(
            f"{budget}: the best plan has {quality.metric} {quality.value:.4f} on validation before fine-tuning, "
            f"below min_quality {budget.min_quality:g}; {self._where_kept(budget.min_quality, budget, family)}"
        )

    def _where_kept(self, floor: float, budget: Budget, family: PlanFamily) -> str:
        tables, dense_s = self.numbers.tables, self._dense_s(budget)

        def quality(choice: Choice) -> float:
            return self._quality(choice, ORDERS[0]).value

        dense = quality(Choice())
        if dense < floor:
            return f"the dense model has {dense:.4f}"
        kept = nearest_with_quality(tables, budget.ratios(dense_s), family, quality, floor)
        if kept is None:
            return f"the dense model has {dense:.4f}, and no budget that was tried keeps it"
        return f"about {in_units(budget.primary, kept[0], dense_s)} keeps {kept[1]:.4f}"

    def _quality(self, choice: Choice, order: str) -> Quality:
        gone, widths = dropped_in_order(self.numbers.tables, choice), widths_of(self.numbers.tables, choice)
        return evaluate(self.numbers.task, self.numbers.engine.model_of(gone, widths, order), "validation")


def _tolerance(resource: str) -> float:
    return 0.0 if resource in (MACS, PARAMS) else LATENCY_TOLERANCE


def open_session(
    task: Task,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    batch_sizes: tuple[int, ...] = (1, 16),
    threads: int = 2,
    folder: Path | None = None,
    rebuild: bool = False,
    examples: int = EXAMPLES,
    criterion: Criterion = CRITERIA[0],
    scored_on: ScoredOn = SCORED_ON[0],
    console: Console | None = None,
) -> Session:
    """`folder` defaults to `runs/tables`. `examples` of the scoring and the calibration split are used.

    `criterion` and `scored_on`: what plans are compared by (`toolkit.planning.tables`).

    Raises:
        UserError: there is no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no CUDA device here; use cpu")
    timing = Timing(torch.device(device), tuple(sorted(set(batch_sizes))), threads)
    tables = folder or Path("runs") / "tables"
    return Session(Numbers(task, timing, tables, console or Console(), rebuild, examples, criterion, scored_on))
