"""One model, one device, any number of budgets: the tables, and plans from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import nn

from toolkit.console import Console
from toolkit.errors import PlanError, UserError
from toolkit.evaluation import evaluate
from toolkit.measure.latency import measure_latency
from toolkit.measure.macs import count_macs
from toolkit.planner import solve, stages_of
from toolkit.planning.budget import Budget
from toolkit.planning.costs import Profiler, Timing
from toolkit.planning.engine import Engine
from toolkit.planning.gather import as_text, assemble, gather_losses
from toolkit.planning.identity import costs_about, losses_about
from toolkit.planning.levels import Space, find_space
from toolkit.planning.note import PlanNote, Predicted
from toolkit.planning.search import EVALUATIONS, EXAMPLES, Found, Scorer, refine
from toolkit.planning.solver import PlanFamily
from toolkit.planning.store import Store, open_store
from toolkit.planning.tables import (
    MACS,
    PARAMS,
    Choice,
    Tables,
    Width,
    added_loss,
    cost,
    dropped_in_order,
    latency_of,
    widths_of,
)
from toolkit.recipe import Measure, Recipe
from toolkit.record import write_atomically
from toolkit.stage_configs import Stage
from toolkit.stages.context import StageContext
from toolkit.task import Split, Task
from toolkit.zoo.config import ZooModel


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


@dataclass
class Session:
    """`folder` holds what was scored and timed; opening the same one again costs no scoring and no timing."""

    task: Task
    timing: Timing
    folder: Path
    console: Console
    rebuild: bool = False
    examples: int = EXAMPLES

    @cached_property
    def dense(self) -> nn.Module:
        return self.task.load_baseline().to(self.timing.device).eval()

    @cached_property
    def context(self) -> StageContext:
        def counted(model: nn.Module) -> int:
            return count_macs(model, tuple(part.to(self.timing.device) for part in self.task.example_inputs(1))).total

        return StageContext(
            dense=self.dense,
            dense_macs=counted(self.dense),
            count_macs=counted,
            device=self.timing.device,
            seed=0,
            console=self.console,
        )

    @cached_property
    def losses(self) -> Store:
        about = losses_about(self.task, self.dense, self.examples)
        return open_store(self.folder / f"losses-{self.task.name}.json", about, self.rebuild)

    @cached_property
    def costs(self) -> Store:
        about = costs_about(self.dense, self.timing)
        name = f"costs-{self.timing.device.type}-{about['model'][:8]}.json"  # shared by tasks of the same structure
        return open_store(self.folder / name, about, self.rebuild)

    @cached_property
    def space(self) -> Space:
        self.console.line("looking for blocks and channel groups")
        found = find_space(self.dense, self.context.example_inputs(self.task), self.task.protected)
        if not found.blocks and not found.widths:
            raise UserError(f"{self.task.name}: the model has no block to drop and no channels to cut")
        return found

    @cached_property
    def engine(self) -> Engine:
        space = self.space
        return Engine(self.dense, self.task, self.context, space.blocks, space.structure, self.examples)

    @cached_property
    def profiler(self) -> Profiler:
        return Profiler(self.dense, self.space, self.task.example_inputs, self.timing, self.costs, lambda _: None)

    @cached_property
    def tables(self) -> Tables:
        """From disk if nothing is missing there."""
        path = self.folder / f"tables-{self.task.name}-{self.timing.device.type}.json"
        kept = None if self.rebuild else _kept_tables(path)
        if kept is not None and self.losses.entries and self.costs.entries:  # both are checked on opening
            return kept
        losses = gather_losses(self.space, lambda: self.engine, self.losses, self.console)
        found = assemble(self.space, losses, self.profiler, self.console)
        write_atomically(path, found.model_dump_json() + "\n")
        return found

    def dense_latency_s(self, batch_size: int) -> float:
        def measured() -> list[float]:
            inputs = tuple(part.to(self.timing.device) for part in self.task.example_inputs(batch_size))
            found = measure_latency(
                self.dense,
                self.dense,
                inputs,
                device=self.timing.device,
                batch_size=batch_size,
                threads=self.timing.threads,
                warmup=3,
                repeats=self.timing.repeats,
            )
            return [found.dense_median_s]

        return self.costs.get(f"dense seconds | {batch_size}", measured)[0]

    def score(self, choice: Choice, order: str) -> float:
        """The plan's loss as applied, kept on disk like the others."""
        gone, widths = dropped_in_order(self.tables, choice), widths_of(self.tables, choice)
        name = f"plan | {order} | {', '.join(gone)} | " + ", ".join(
            f"{k}: {as_text(v)}" for k, v in sorted(widths.items())
        )
        return self.losses.get(name, lambda: [self.engine.loss_of(gone, widths, order)])[0]

    @property
    def num_single_changes(self) -> int:
        """Models that were scored for the tables, the dense one among them."""
        drops = len(self.tables.blocks) + sum(bool(context.widths) for context in self.tables.contexts)
        return 1 + drops + sum(len(group.widths) - 1 for group in self.tables.groups)

    def split_loss(self, dropped: Sequence[str], widths: Mapping[str, Width], order: str, split: Split) -> float:
        """The task's mean loss on another split, of a plan as applied."""
        model = self.engine.model_of(dropped, widths, order)
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self.context.batches(self.task, split):
                total += float(self.task.loss(model(*batch.inputs), batch.targets)) * len(batch.inputs[0])
                count += len(batch.inputs[0])
        return total / count

    def plan(self, budget: Budget, family: PlanFamily, evaluations: int = EVALUATIONS) -> Planned:
        """The best plan that was found within the budget.

        Raises:
            PlanError: no plan of the family holds the limits, or none keeps the quality that was asked for.
        """
        started = time.perf_counter()
        tables = self.tables
        dense_s = self.dense_latency_s(budget.batch_size) if budget.primary.unit == "ms" else None
        first = solve(tables, budget, family, dense_s)
        found = Found(first, "depth_then_width", tables.dense_loss + added_loss(tables, first))
        scorer = Scorer(self.score)
        if evaluations:
            with self.console.progress(f"scoring plans ({family}, {budget})", evaluations) as bar:

                def score(choice: Choice, order: str) -> float:
                    loss = self.score(choice, order)
                    bar.advance()
                    return loss

                scorer = Scorer(score)
                refined = refine(tables, budget.ratios(dense_s), family, scorer, evaluations)
            assert refined is not None, "solve has found one"
            found = refined
        self._check_quality(found, budget)
        seconds = time.perf_counter() - started
        note = self._note(found, budget, family, scorer, seconds)
        return Planned(self.task.name, found.choice, found.order, note, tables)

    def _check_quality(self, found: Found, budget: Budget) -> None:
        if budget.min_quality is None:
            return
        gone, widths = dropped_in_order(self.tables, found.choice), widths_of(self.tables, found.choice)
        model = self.engine.model_of(gone, widths, found.order)
        quality = evaluate(self.task, model, "validation")
        if quality.value < budget.min_quality:
            raise PlanError(
                f"{budget}: the best plan has {quality.metric} {quality.value:.4f} on validation before fine-tuning, "
                f"below min_quality {budget.min_quality:g}; give a larger budget"
            )

    def _note(self, found: Found, budget: Budget, family: PlanFamily, scorer: Scorer, seconds: float) -> PlanNote:
        tables, choice = self.tables, found.choice
        engine = self.__dict__.get("engine")
        return PlanNote(
            family=family,
            budget=str(budget),
            device=self.timing.device.type,
            batch_size=budget.batch_size,
            threads=self.timing.threads,
            order=found.order,
            dropped=tuple(dropped_in_order(tables, choice)),
            widths=widths_of(tables, choice),
            predicted=Predicted(
                macs_ratio=cost(tables, choice, MACS),
                params_ratio=cost(tables, choice, PARAMS),
                latency_ratio={size: cost(tables, choice, latency_of(size)) for size in self.timing.batch_sizes},
            ),
            dense_loss=tables.dense_loss,
            additive_loss=tables.dense_loss + added_loss(tables, choice),
            scored_loss=found.loss,
            evaluations=scorer.spent,
            block_passes=0.0 if engine is None else engine.block_passes,
            seconds=seconds,
        )


def _kept_tables(path: Path) -> Tables | None:
    """None where they have to be put together again from losses and costs."""
    try:
        return Tables.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def open_session(
    task: Task,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    batch_sizes: tuple[int, ...] = (1, 16),
    threads: int = 2,
    folder: Path | None = None,
    rebuild: bool = False,
    examples: int = EXAMPLES,
    console: Console | None = None,
) -> Session:
    """`folder` defaults to `runs/tables`. `examples` of the scoring and the calibration split are used.

    Raises:
        UserError: there is no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no CUDA device here; use cpu")
    timing = Timing(torch.device(device), tuple(sorted(set(batch_sizes))), threads)
    return Session(task, timing, folder or Path("runs") / "tables", console or Console(), rebuild, examples)
