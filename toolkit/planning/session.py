"""Plans one model on one device for any number of budgets."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

import torch

from toolkit.base.console import Console
from toolkit.base.errors import PlanError, UserError
from toolkit.measure.reproducible import reproducible
from toolkit.measure.results import Quality
from toolkit.planning.budget import Budget
from toolkit.planning.plan_search import PlanSearch
from toolkit.planning.planned import Planned
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.losses import PlanScorer
from toolkit.planning.profile.model_profile import ModelProfile
from toolkit.planning.search.refine import EVALUATIONS, ORDERS, BestPlan, nearest_with_quality
from toolkit.planning.search.runoff import FINALISTS
from toolkit.planning.search.solver import PlanFamily, minimise_cost
from toolkit.planning.settings import TIMED_BATCHES, PlanSettings
from toolkit.planning.solve import in_units, solve
from toolkit.planning.tables import MACS, PARAMS, Plan, added_loss, cost, drops_of, latency_of, widths_of
from toolkit.record.plan import PlanRecord, Predicted
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task

MOST_TIGHTENINGS = 8

LATENCY_TOLERANCE = 0.02  # share of a limit that a repeated timing may be above it


@dataclass(frozen=True)
class Planner:
    """Plans one model for any number of budgets; `num_finalists` plans of every family are judged on fresh data."""

    profile: ModelProfile
    num_finalists: int = FINALISTS

    def plan(
        self,
        budget: Budget,
        family: PlanFamily,
        evaluations: int = EVALUATIONS,
        *,
        timed: bool = True,
        seed: int = 0,
        recover: Recover | None = None,
    ) -> Planned:
        """Returns the best plan found within the budget.

        family: the axes that may be cut: `depth`, `width` or `combined`.
        evaluations: plans scored end to end, six times as many for the combined family, which starts from the best
            plans of both axes. The best plans are then judged on fresh data. With 0 the tables alone decide.
        timed: whether a plan whose latency is limited is timed as a whole; a plan that misses the limit tightens it,
            and the search is repeated.
        recover: the recovery that follows the plan; finalists are judged after the first of its steps.

        Raises:
            PlanError: no plan of the family holds the limits, or the best one does not keep the quality asked for.
        """
        started, passes = time.perf_counter(), self._passes
        budget.check_countable(lambda: self.profile.dense_macs)
        tables = self.profile.tables
        solve(tables, budget, self._device, family, self._dense_s(budget))  # raises where no plan is feasible
        search = PlanSearch(self.profile, evaluations, seed, self.num_finalists, recover)
        with reproducible(self.profile.timing.device):
            best, counts = self._within(budget, family, search, timed and evaluations > 0)
            self._check_quality(best, budget, family, search.width_repair)
        note = self._note(budget, family, best, counts).model_copy(
            update={
                "scored_loss": best.loss if evaluations else None,
                "judged_loss": search.judged_loss,
                "width_repair": search.width_repair,
                "evaluations": search.scorer.spent,
                "block_passes": self._passes - passes,
                "seconds": time.perf_counter() - started,
            }
        )
        return Planned(self.profile.task.name, best.choice, best.order, note, tables)

    def _note(self, budget: Budget, family: PlanFamily, best: BestPlan, counts: dict[str, float]) -> PlanRecord:
        """Returns the record of a plan and its predictions, without scores and with a search effort of 0."""
        tables, choice = self.profile.tables, best.choice
        drops = drops_of(tables, choice)
        latencies = {key: latency_of(key) for key in self.profile.timing.keys}
        return PlanRecord(
            family=family,
            budget=str(budget),
            device=self._device,
            batch_size=budget.batch_size,
            threads=self.profile.timing.threads,
            order=best.order,
            criterion=self.profile.criterion,
            scored_on=self.profile.scored_on,
            dropped=tuple(drops),
            bypassed={name: rank for name, rank in drops.items() if rank is not None},
            widths=widths_of(tables, choice),
            predicted=Predicted(
                macs_ratio=None if tables.macs_are_partial else counts[MACS],
                params_ratio=counts[PARAMS],
                latency_ratio={key: cost(tables, choice, name) for key, name in latencies.items()},
            ),
            measured_latency_ratio={key: counts[name] for key, name in latencies.items() if name in counts},
            dense_loss=tables.dense_loss,
            additive_loss=tables.dense_loss + added_loss(tables, choice),
            scored_loss=None,
            evaluations=0,
            block_passes=0.0,
            seconds=0.0,
        )

    def _within(
        self, budget: Budget, family: PlanFamily, search: PlanSearch, timed: bool
    ) -> tuple[BestPlan, dict[str, float]]:
        """Returns the plan and its measured costs: multiply-adds, parameters and, if `timed`, the limited latencies.

        Latencies of the tables are predictions, and so are counts where groups share layers. While a plan misses a
        limit, that limit is tightened by the excess and the search is repeated.
        """
        asked = budget.ratios(self._device, self._dense_s(budget))
        limits = dict(asked)
        for _ in range(MOST_TIGHTENINGS):
            best = search.best(limits, family)
            if best is None:
                break
            counts = self._measured(best.choice, asked, timed)
            over = {
                key: counts[key] - value
                for key, value in asked.items()
                if key in counts and counts[key] > value * (1 + _tolerance(key)) + 1e-6
            }
            if not over:
                return best, counts
            limits = {
                key: cost(self.profile.tables, best.choice, key) - over[key] if key in over else value
                for key, value in limits.items()
            }
        raise PlanError(
            f"no plan of family {family} was found to hold {budget}; {self._nearest(budget, asked, family, timed)}"
        )

    def _nearest(self, budget: Budget, asked: dict[str, float], family: PlanFamily, timed: bool) -> str:
        """Returns words for the nearest budget: the measured cost of the plan that is cheapest by the tables."""
        primary = budget.resource_of(budget.primary, self._device)
        least = minimise_cost(self.profile.tables, primary, asked, family)
        assert least is not None  # the tables held plans within the budget
        reached = self._measured(least, asked, timed).get(primary, cost(self.profile.tables, least, primary))
        others = ", ".join(map(str, budget.limits[1:]))
        nearest = in_units(budget.primary, reached + 5e-4, self._dense_s(budget))
        return f"the nearest feasible budget is about {nearest}{' within ' + others if others else ''}"

    def _measured(self, choice: Plan, asked: Collection[str], timed: bool) -> dict[str, float]:
        return self._counts(choice) | (self._latencies(choice, asked) if timed else {})

    def _latencies(self, choice: Plan, asked: Collection[str]) -> dict[str, float]:
        keys = [key for key in self.profile.timing.keys if latency_of(key) in asked]
        return {latency_of(key): self.profile.measured_latency(choice, key) for key in keys}

    def _counts(self, choice: Plan) -> dict[str, float]:
        tables = self.profile.tables
        if tables.counts_add_up:
            return {key: cost(tables, choice, key) for key in (MACS, PARAMS)}
        return self.profile.profiler.counts(drops_of(tables, choice), widths_of(tables, choice))

    def _dense_s(self, budget: Budget) -> float | None:
        in_ms = any(limit.unit == "ms" for limit in budget.limits)
        return self.profile.dense_latency_s(budget.latency_key(self._device)) if in_ms else None

    @property
    def _device(self) -> str:
        return self.profile.timing.device.type

    @property
    def _passes(self) -> float:
        """Returns the number of block passes so far, each over the examples that are scored."""
        engine: PlanScorer | None = vars(self.profile).get("engine")
        return 0.0 if engine is None else engine.block_passes

    def _check_quality(self, best: BestPlan, budget: Budget, family: PlanFamily, repair: WidthRepair) -> None:
        if budget.min_quality is None:
            return
        quality = self._quality(best.choice, best.order, repair)
        if quality.value >= budget.min_quality:
            return
        raise PlanError(
            f"{budget}: the best plan has {quality.metric} {quality.value:.4f} on validation before fine-tuning, "
            f"below min_quality {budget.min_quality:g}; {self._where_kept(budget.min_quality, budget, family)}"
        )

    def _where_kept(self, floor: float, budget: Budget, family: PlanFamily) -> str:
        tables, dense_s = self.profile.tables, self._dense_s(budget)

        def quality(choice: Plan) -> float:
            return self._quality(choice, ORDERS[0]).value

        dense = quality(Plan())
        if dense < floor:
            return f"the dense model has {dense:.4f}; give a lower min_quality"
        nearest = nearest_with_quality(tables, budget.ratios(self._device, dense_s), family, quality, floor)
        if nearest is None:
            return f"the dense model has {dense:.4f}, and no budget that was tried keeps min_quality"
        return f"about {in_units(budget.primary, nearest[0], dense_s)} keeps {nearest[1]:.4f}"

    def _quality(self, choice: Plan, order: str, repair: WidthRepair = "closed_form") -> Quality:
        drops, widths = drops_of(self.profile.tables, choice), widths_of(self.profile.tables, choice)
        model = self.profile.engine.models.model_of(drops, widths, order, repair)
        return evaluate(self.profile.task, model, "validation")


def _tolerance(resource: str) -> float:
    return 0.0 if resource in (MACS, PARAMS) else LATENCY_TOLERANCE


def open_session(task: Task, settings: PlanSettings | None = None, *, console: Console | None = None) -> Planner:
    """Returns a planner for `task`; scores and timings are made when a plan needs them.

    Raises:
        UserError: the settings name the device `cuda`, and this machine has none.
    """
    settings = settings or PlanSettings()
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no CUDA device here; use cpu")
    sizes = TIMED_BATCHES if settings.batch_sizes is None else settings.batch_sizes
    timing = TimingSettings(torch.device(settings.device), tuple(sorted(set(sizes))), settings.threads)
    profile = ModelProfile(
        task,
        timing,
        settings.tables,
        console or Console(),
        settings.rebuild,
        settings.examples,
        settings.criterion,
        settings.scored_on,
        settings.round_to,
        settings.bypass,
    )
    return Planner(profile, settings.num_finalists)
