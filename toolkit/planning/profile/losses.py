"""Plans as models: blocks dropped and widths cut on copies of the dense model, repaired quickly, and scored.

The repairs are those that the stages make, on the same calibration data; see `toolkit.repair.sequence`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.blocks.drop import drop_block
from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.groups import ChannelGroup, Structure, still_there
from toolkit.hooks.forward import forward_replaced
from toolkit.hooks.order import execution_order
from toolkit.hooks.passes import Meter, metered
from toolkit.hooks.points import ActivationPoint, Inputs
from toolkit.planning.tables import Width, drops_before
from toolkit.record.plan import Criterion, ScoredOn
from toolkit.repair.batch_norm import batch_norms, reestimate_batch_norms
from toolkit.repair.fit import Site
from toolkit.repair.sequence import Aim, Goals, Outputs, RepairSequence, keeping
from toolkit.repair.sites import depth_site, home_of, joining_point, last_gone_after, reader_sites
from toolkit.stages.channel_prune.importance import score_groups
from toolkit.stages.channel_prune.widths import choose, given_cuts
from toolkit.stages.context import StageContext
from toolkit.tasks.evaluate import mean_loss
from toolkit.tasks.task import AlignmentOptions, Batch, Split, Task

IMPORTANCE = "activation"

SCORING_SPLITS: dict[ScoredOn, Split] = {"training": "score", "validation": "validation"}


class PlanScorer:
    """Makes and scores plans of one dense model, on `examples` of the data to score on and as many
    of the calibration split.

    `evaluations` and `meter` count what that took.
    """

    def __init__(
        self,
        dense: nn.Module,
        task: Task,
        context: StageContext,
        blocks: Sequence[str],
        structure: Structure,
        examples: int | None = None,
        criterion: Criterion = "loss",
        scored_on: ScoredOn = "training",
    ) -> None:
        self.dense, self.task, self.context = dense, task, context
        self.blocks, self.groups = list(blocks), {group.name: group for group in structure.groups}
        self.example = context.example_inputs(task)
        find_blocks(dense, self.example)
        self.order = execution_order(dense, self.example)
        self._batches = partial(context.batches, task, "calibration", limit=examples)
        self.calibration: list[Inputs] = [batch.inputs for batch in self._batches()]
        self.scoring: list[Batch] = list(context.batches(task, SCORING_SPLITS[scored_on], limit=examples))
        self.criterion = criterion
        self.meter = Meter()
        self.evaluations = 0
        self._outputs: dict[str, Outputs] = {
            "calibration": self._dense_outputs(self.calibration),
            "score": self._dense_outputs([batch.inputs for batch in self.scoring]),
        }
        self._dense_goals: Goals = [{} for _ in self.calibration]
        self._depth_sites: dict[tuple[frozenset[str], str], Site | None] = {}  # by what is gone, and what goes next
        self._joins: dict[str, ActivationPoint] = {}

    @property
    def block_passes(self) -> float:
        """In blocks over the scoring set."""
        return self.meter.blocks / sum(len(batch.inputs[0]) for batch in self.scoring)

    def loss_of(self, dropped: Sequence[str], widths: Mapping[str, Width], order: str) -> float:
        """The mean loss by the criterion on the scoring data, of the plan after its repairs."""
        self.evaluations += 1
        loss = self._score(self.model_of(dropped, widths, order), self._unchanged(dropped, widths))
        if not math.isfinite(loss):
            cuts = ", ".join([*dropped, *widths])
            raise StageError(f"the loss after cutting {cuts} is {loss}; the model or its data is broken")
        return loss

    def dense_loss(self) -> float:
        self.evaluations += 1
        return self._score(self.dense, [])

    def model_of(self, dropped: Sequence[str], widths: Mapping[str, Width], order: str) -> nn.Module:
        """A new model; what it shares with the dense one is not computed again."""
        model = copy.deepcopy(self.dense)  # with the marks that find_blocks leaves
        shared = self._unchanged(dropped, widths)
        gone = [block for block in self.blocks if block in dropped]
        half = drops_before(order, len(gone)) if widths else len(gone)
        first, last = gone[:half], gone[half:]
        self._drop(model, self.dense, first, shared)
        before = copy.deepcopy(model) if widths and first else self.dense
        self._narrow(model, before, widths, shared)
        is_narrower = any(self.groups[name].kind == "embedding" for name in widths)
        self._drop(model, copy.deepcopy(model) if is_narrower and last else self.dense, last, shared)
        return model

    def _drop(self, model: nn.Module, reference: nn.Module, blocks: Sequence[str], shared: Sequence[str]) -> None:
        repair = self._sequence(model, reference, shared)
        for block in blocks:
            site = self._depth_site(model, block, reference is self.dense)
            if site is not None:
                with self._metered(model), self._metered(reference):
                    repair.fit(site)
            drop_block(model, block)

    def _narrow(
        self, model: nn.Module, reference: nn.Module, widths: Mapping[str, Width], shared: Sequence[str]
    ) -> None:
        if not widths:
            return
        groups = still_there([self.groups[name] for name in widths], model)
        scores = self._dense_scores if reference is self.dense else self._scores(model, groups)
        choices = choose(given_cuts(groups, self.dense, widths), scores)
        cut(model, choices)
        sites = reader_sites(model, choices, self._order_of(model), self._join)
        repair = self._sequence(model, reference, shared)
        with self._metered(model), self._metered(reference):
            repair.look_at({site.goal for site in sites})
            for site in sites:
                repair.fit(site)
        reestimate_batch_norms(model, self.calibration)

    def _order_of(self, model: nn.Module) -> list[str]:
        """Widths do not change the order of calls, and dropped blocks call nothing."""
        gone = dropped_blocks(model)
        return [name for name in self.order if not any(name.startswith(f"{block}.") for block in gone)]

    def _depth_site(self, model: nn.Module, block: str, aims_at_dense: bool = True) -> Site | None:
        """Widths do not change where outputs join the stream, but narrower streams have fewer scales."""
        gone = dropped_blocks(model)
        if not aims_at_dense:
            return depth_site(model, block, self.example, self._order_of(model), block)
        key = frozenset(gone), block
        if key not in self._depth_sites:
            goal = last_gone_after(block, gone, self.order)
            self._depth_sites[key] = depth_site(model, block, self.example, self._order_of(model), goal)
        return self._depth_sites[key]

    def _join(self, layer: str) -> ActivationPoint:
        """Inside a block neither widths nor other blocks change it."""
        if layer not in self._joins:
            home = home_of(layer, self.blocks)
            self._joins[layer] = joining_point(self.dense, layer, home, self.example, self.order)
        return self._joins[layer]

    def _scores(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, Tensor]:
        with self._metered(model):
            return score_groups(model, groups, IMPORTANCE, self.task, self._batches, self.context.seed)

    @cached_property
    def _dense_scores(self) -> dict[str, Tensor]:
        return self._scores(self.dense, list(self.groups.values()))

    @cached_property
    def _repaired_for(self) -> dict[str, int]:
        """Where the layer is that is refitted when a block goes; the block itself where there is none."""
        sites = {block: self._depth_site(self.dense, block) for block in self.blocks}
        return {block: self.order.index(site.layer if site else block) for block, site in sites.items()}

    def _metered(self, model: nn.Module) -> AbstractContextManager[None]:
        """Not around a copy of the model: that would call the blocks of the one that is metered."""
        gone = dropped_blocks(model)
        return metered(self.meter, model, [block for block in self.blocks if block not in gone])

    def _sequence(self, model: nn.Module, reference: nn.Module, shared: Sequence[str]) -> RepairSequence:
        known = {key: value for key, value in self._outputs["calibration"].items() if key[0] in shared}
        is_dense = reference is self.dense
        goals = self._dense_goals if is_dense else [{} for _ in self.calibration]
        aim = Aim(reference, goals, self._outputs["calibration"] if is_dense else {})
        return RepairSequence(model, aim, self.calibration, self.blocks, self._order_of(model), known)

    def _unchanged(self, dropped: Sequence[str], widths: Mapping[str, Width]) -> list[str]:
        """Leading blocks that compute what they do in the dense model; none where BatchNorm is estimated again."""
        if widths and batch_norms(self.dense):
            return []
        changed = [self._first_layer(self.groups[name]) for name in widths]
        changed += [self._repaired_for[block] for block in dropped]
        first = min(changed, default=len(self.order))
        return [block for block in self.blocks if self._end_of(block) < first]

    def _first_layer(self, group: ChannelGroup) -> int:
        places = [self.order.index(slot.module) for slot in group.slots if slot.module in self.order]
        return min(places, default=0) if len(places) == len(group.slots) else 0

    def _end_of(self, block: str) -> int:
        return max(place for place, name in enumerate(self.order) if name == block or name.startswith(f"{block}."))

    @torch.no_grad()
    def _dense_outputs(self, batches: Sequence[Inputs]) -> Outputs:
        found: Outputs = {}
        with self._metered(self.dense), ExitStack() as stack:
            current: list[int] = []
            for block in self.blocks:
                stack.enter_context(forward_replaced(self.dense.get_submodule(block), keeping(found, block, current)))
            for number, inputs in enumerate(batches):
                current[:] = [number]
                self.dense(*inputs)
        return found

    @torch.no_grad()
    def _score(self, model: nn.Module, shared: Sequence[str]) -> float:
        current: list[int] = []  # the number of the batch that is run

        def batches() -> Iterator[Batch]:
            for number, batch in enumerate(self.scoring):
                current[:] = [number]
                yield batch

        with self._metered(model), ExitStack() as stack:
            for block in shared:
                kept = keeping(self._outputs["score"], block, current)
                stack.enter_context(forward_replaced(model.get_submodule(block), kept))
            return mean_loss(model, batches(), lambda outputs, _: self._loss(outputs, current[0]))

    def _loss(self, outputs: Any, number: int) -> float:
        targets = self.scoring[number].targets
        if self.criterion == "loss":
            return float(self.task.loss(outputs, targets))
        terms = self.task.alignment(outputs, self._dense_predictions[number], targets, AlignmentOptions())
        return sum(float(term) for term in terms.values())

    @cached_property
    def _dense_predictions(self) -> list[Any]:
        """By scoring batch."""
        with self._metered(self.dense):
            return [self.dense(*batch.inputs) for batch in self.scoring]
