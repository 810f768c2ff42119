"""Holds all numbers that planning needs of a model: losses and costs of single changes, and scores of plans."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.base.files import content_sha256, write_atomically
from toolkit.hooks.routes import routed_modules
from toolkit.measure.counted import Macs
from toolkit.measure.latency import measure_latency
from toolkit.measure.macs import count_macs
from toolkit.measure.reproducible import reproducible
from toolkit.measure.results import MeasurementKey
from toolkit.planning.profile.correction import as_text, described
from toolkit.planning.profile.costs import CostProfiler, TimingSettings
from toolkit.planning.profile.gather import gather_costs, gather_losses, with_losses
from toolkit.planning.profile.identity import costs_about, kept_name, losses_about
from toolkit.planning.profile.judging import PlanJudge
from toolkit.planning.profile.losses import SCORING_SPLITS, PlanScorer
from toolkit.planning.profile.plan_models import PlanModels
from toolkit.planning.profile.space import Space, find_space
from toolkit.planning.profile.store import Store, open_store
from toolkit.planning.search.refine import EXAMPLES, ROUND_TO
from toolkit.planning.tables import Drops, Plan, Tables, Width, drops_of, removals, widths_of
from toolkit.record.plan import CRITERIA, SCORED_ON, Criterion, ScoredOn
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.stages.context import StageContext
from toolkit.stages.recover.settings import Recover
from toolkit.tasks.evaluate import mean_loss
from toolkit.tasks.folded import folded_task
from toolkit.tasks.task import Split, Task
from toolkit.tasks.trial import inputs_of, smallest_batch


@dataclass
class ModelProfile:
    """Scores and times one model on one device; each number is measured when it is first asked for.

    Fields that are not named here are explained in `PlanSettings`.
    folder: the folder that keeps all numbers; what it holds is not scored or timed again.
    """

    task: Task
    timing: TimingSettings
    folder: Path
    console: Console
    rebuild: bool = False
    examples: int = EXAMPLES
    criterion: Criterion = CRITERIA[0]
    scored_on: ScoredOn = SCORED_ON[0]
    round_to: int = ROUND_TO
    bypass: bool = True

    @cached_property
    def dense(self) -> nn.Module:
        return folded_task(self.task)[0].load_baseline().to(self.timing.device).eval()

    @cached_property
    def smallest_batch(self) -> int:
        """Returns the least number of examples per call that the model takes."""
        return smallest_batch(self.dense, self.inputs)

    def inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        return tuple(part.to(self.timing.device) for part in inputs_of(self.task, batch_size))

    def macs_of(self, model: nn.Module) -> Macs:
        """Returns the multiply-adds of one example."""
        return count_macs(model, self.inputs(self.smallest_batch), self.smallest_batch)

    @cached_property
    def dense_macs(self) -> Macs:
        return self.macs_of(self.dense)

    @cached_property
    def context(self) -> StageContext:
        def counted(model: nn.Module) -> int | None:
            return self.macs_of(model).known_total

        return StageContext(
            dense=self.dense,
            dense_macs=self.dense_macs.known_total,
            count_macs=counted,
            device=self.timing.device,
            seed=0,
            console=self.console,
            smallest_batch=self.smallest_batch,
        )

    @cached_property
    def losses(self) -> Store:
        """Returns the store of losses, which depends on the task and on what plans are compared by."""
        about = losses_about(self.task, self.dense, self.examples, self.criterion, self.scored_on)
        name = f"losses-{self.task.name}-{self.criterion}-{self.scored_on}.json"
        return open_store(self.folder / name, about, self.rebuild)

    @cached_property
    def costs(self) -> Store:
        """Returns the store of costs, which tasks whose models have the same structure share."""
        about = costs_about(self.dense, self.context.example_inputs(self.task), self.timing)
        sizes = "-".join(map(kept_name, self.timing.keys))
        name = f"costs-{self.timing.device.type}-{about['model'][:8]}-batch-{sizes}-threads-{self.timing.threads}.json"
        return open_store(self.folder / name, about, self.rebuild)

    @cached_property
    def space(self) -> Space:
        """Returns the blocks, groups and widths that plans choose from.

        Raises:
            UserError: the model has no block to drop and no channels to cut.
        """
        self.console.line("looking for blocks and channel groups")
        inputs = self.context.example_inputs(self.task)
        found = find_space(
            self.dense,
            inputs,
            self.task.protected,
            self.round_to,
            bypass=self.bypass,
            others=self.context.other_paths(self.task, self.dense),
            routed=routed_modules(self.dense, self.context.varied_inputs(self.task, "calibration")),
        )
        if found.blocks or found.widths:
            return found
        raise UserError(f"{self.task.name}: the model has no block to drop and no channels to cut")

    @cached_property
    def engine(self) -> PlanScorer:
        """Returns the scorer of plans on the data of the search."""
        space = self.space
        models = PlanModels(self.dense, self.task, self.context, space.blocks, space.structure, self.examples)
        return PlanScorer(models, self.examples, self.criterion, SCORING_SPLITS[self.scored_on])

    @cached_property
    def judge(self) -> PlanJudge:
        """Returns the judge of plans on fresh data."""
        return PlanJudge(self.engine)

    @cached_property
    def profiler(self) -> CostProfiler:
        too_few = [size for size in self.timing.batch_sizes if size < self.smallest_batch]
        if too_few:
            raise UserError(
                f"{self.task.name}: latency at batch size {too_few[0]} cannot be measured: the model takes at least "
                f"{self.smallest_batch} examples per call; give a batch size of at least {self.smallest_batch}"
            )

        def inputs(size: int) -> tuple[Tensor, ...]:
            return inputs_of(self.task, max(size, self.smallest_batch))  # multiply-adds are counted at size 1

        return CostProfiler(self.dense, self.space, inputs, self.timing, self.costs)

    @cached_property
    def cost_tables(self) -> Tables:
        """Returns the tables of costs; their losses are all 0."""
        with reproducible(self.timing.device):
            found = gather_costs(self.space, self.profiler, self.console)
        return found.model_copy(update={"macs_are_partial": self.dense_macs.is_partial})

    @cached_property
    def tables(self) -> Tables:
        """Returns the losses and costs of all single changes, read from `folder` if nothing is missing there."""
        both = [self.losses.about, self.costs.about, self.round_to]  # both stores are checked on opening
        digest = content_sha256([*both, self.bypass])[:8]
        path = self.folder / f"tables-{self.task.name}-{self.timing.device.type}-{digest}.json"
        if self.rebuild:
            path.unlink(missing_ok=True)
        kept = _kept_tables(path, self.timing.resources)
        if kept is not None and self.losses.entries and self.costs.entries:
            return kept
        with reproducible(self.timing.device):
            losses = gather_losses(self.space, lambda: self.engine, self.losses, self.console)
        tables = with_losses(self.cost_tables, losses)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, tables.model_dump_json() + "\n")
        return tables

    def dense_latency_s(self, key: MeasurementKey) -> float:
        """Returns the median latency of the dense model in seconds per call."""

        def measured() -> list[float]:
            latency = measure_latency(
                self.dense,
                self.dense,
                self.task.example_inputs(key.batch_size),
                key,
                threads=self.timing.threads,
                warmup=3,
                repeats=self.timing.repeats,
            )
            return [latency.dense_median_s]

        return self.costs.get(f"dense seconds | {kept_name(key)}", measured)[0]

    def measured_latency(self, choice: Plan, key: MeasurementKey) -> float:
        """Returns the latency of a plan's whole model as a share of the dense model's."""

        def measured() -> list[float]:
            model = self.profiler.built(drops_of(self.tables, choice), widths_of(self.tables, choice))
            return [self.profiler.latency_ratio(model, key)]

        return self.costs.get(f"whole | {kept_name(key)} | {described(self.tables, choice)}", measured)[0]

    def score(self, choice: Plan, order: str) -> float:
        """Returns the loss of the plan's repaired model on the data of the search, and keeps it on disk."""
        drops, widths = drops_of(self.tables, choice), widths_of(self.tables, choice)
        dropped = [name if rank is None else f"{name} to {rank}" for name, rank in drops.items()]
        narrowed = [f"{name}: {as_text(width)}" for name, width in sorted(widths.items())]
        name = f"plan | {order} | {', '.join(dropped)} | {', '.join(narrowed)}"
        return self.losses.get(name, lambda: [self.engine.loss_of(drops, widths, order)])[0]

    def judged(self, choice: Plan, order: str, repair: WidthRepair, recover: Recover | None) -> float:
        """Returns the loss of the plan's model on fresh data, after the first steps of `recover` if it is given.

        The loss is kept on disk.
        """
        drops, widths = drops_of(self.tables, choice), widths_of(self.tables, choice)
        steps = "" if recover is None else f" | {content_sha256(recover.model_dump(mode='json'))[:8]}"
        name = f"judged | {order} | {repair} | {described(self.tables, choice)}{steps}"
        return self.losses.get(name, lambda: [self.judge.loss_of(drops, widths, order, repair, recover)])[0]

    @property
    def num_single_changes(self) -> int:
        """Returns the number of models that were scored for the tables, the dense one included."""
        drops = len(removals(self.tables)) + sum(bool(context.widths) for context in self.tables.contexts)
        return 1 + drops + sum(len(group.widths) - 1 for group in self.tables.groups)

    def split_loss(self, drops: Drops, widths: Mapping[str, Width], order: str, split: Split) -> float:
        """Returns the task's mean loss on a split, of a plan's repaired model."""
        model = self.engine.models.model_of(drops, widths, order)
        return mean_loss(model, self.context.batches(self.task, split), self.task.loss)


def _kept_tables(path: Path, resources: Collection[str]) -> Tables | None:
    """Returns the tables at `path`, or None if they must be put together again from the stores.

    That is the case if they are missing, damaged, or name resources as an earlier version did (`latency@16`).
    """
    try:
        kept = Tables.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return kept if all(set(context.rest) == set(resources) for context in kept.contexts) else None
