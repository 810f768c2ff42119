"""Makes the models of plans: drops blocks and cuts widths on copies of the dense model, and repairs the copies.

The repairs are those of the stages, on the same calibration data; see `toolkit.repair.sequence`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from toolkit.blocks.drop import drop_block
from toolkit.blocks.dropped import dropped_blocks, emptied_blocks, stand_ins_of
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut
from toolkit.channels.groups import ChannelGroup, Structure, still_there
from toolkit.hooks.copies import copy_model
from toolkit.hooks.forward import forward_replaced
from toolkit.hooks.order import execution_order
from toolkit.hooks.passes import Meter, metered
from toolkit.hooks.points import ActivationPoint, Inputs
from toolkit.planning.profile.bypasses import arguments_of
from toolkit.planning.solve import IMPORTANCE
from toolkit.planning.tables import Drops, Width, halves, in_runs
from toolkit.repair.batch_norm import norms_to_reestimate
from toolkit.repair.bypass import BypassSite
from toolkit.repair.joint import Joint
from toolkit.repair.readers import in_line
from toolkit.repair.sequence import Aim, Goals, Outputs, RepairSequence, keeping
from toolkit.repair.site import Site
from toolkit.repair.sites import (
    depth_site,
    drifted_layers,
    first_reader,
    goal_of,
    home_of,
    joining_point,
    last_gone_after,
    reader_sites,
)
from toolkit.stages.channel_prune.importance import score_groups
from toolkit.stages.channel_prune.settings import WidthRepair
from toolkit.stages.channel_prune.widths import choose, given_cuts
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Split, Task


class PlanModels:
    """Makes the models of plans of one dense model.

    blocks: the names of the dense model's blocks.
    structure: the channel groups of the dense model.
    examples: the number of examples of `split` that models are repaired on; None stands for all.
    meter: counts the passes of blocks, including those that callers make within `metered`.
    """

    def __init__(
        self,
        dense: nn.Module,
        task: Task,
        context: StageContext,
        blocks: Sequence[str],
        structure: Structure,
        examples: int | None = None,
        split: Split = "calibration",
    ) -> None:
        self.dense, self.task, self.context = dense, task, context
        self.structure, self.examples = structure, examples
        self.blocks, self.groups = list(blocks), {group.name: group for group in structure.groups}
        self.example = context.example_inputs(task)
        find_blocks(dense, self.example)
        self.order = execution_order(dense, self.example)
        self._batches = partial(context.batches, task, split, limit=examples)
        self.calibration: list[Inputs] = [batch.inputs for batch in self._batches()]
        self.meter = Meter()
        self._outputs = self.dense_outputs(self.calibration)
        self._dense_goals: Goals = [{} for _ in self.calibration]
        self._depth_sites: dict[tuple[frozenset[str], str], Site | None] = {}  # by the layers called, and the block
        self._joins: dict[str, tuple[ActivationPoint, Joint] | None] = {}
        self._scores: dict[tuple[object, ...], dict[str, Tensor]] = {}  # by the drops before the cut

    def repaired_on(self, split: Split) -> PlanModels:
        """Returns an object that makes the models of the same plans but repairs them on another split."""
        return PlanModels(self.dense, self.task, self.context, self.blocks, self.structure, self.examples, split)

    def model_of(
        self, drops: Drops, widths: Mapping[str, Width], order: str, repair: WidthRepair = "closed_form"
    ) -> nn.Module:
        """Returns the repaired model of a plan; what it shares with the dense model is not computed again.

        repair: the repair of the width stage.
        """
        model = copy_model(self.dense)  # with the marks that find_blocks leaves
        shared = self.unchanged(drops, widths)
        first, last = halves({block: drops[block] for block in self.blocks if block in drops}, order, bool(widths))
        self._drop(model, self.dense, first, shared)
        self._narrow(model, widths, first, shared, repair)
        is_narrower = any(self.groups[name].kind == "embedding" for name in widths)
        for rank, blocks in in_runs(last):  # a stage for each, whose reference is the model as it comes into the stage
            reference = copy_model(model) if is_narrower else self.dense
            self._drop(model, reference, dict.fromkeys(blocks, rank), shared)
        return model

    def _drop(self, model: nn.Module, reference: nn.Module, drops: Drops, shared: Sequence[str]) -> None:
        repair = self._sequence(model, reference, shared)
        for block, rank in drops.items():
            site, stand_in = self._depth_site(model, block, reference is self.dense), None
            arguments = None if rank is None else arguments_of(model, block, rank, self.example)
            with self.metered(model), self.metered(reference):
                if arguments is not None:
                    goal = last_gone_after(block, self._gone(model), self.order)
                    bypass = BypassSite(block, ActivationPoint(goal, "output"), arguments)
                    stand_in = repair.fit_with_bypass(site, bypass)
                elif site is not None:
                    repair.fit(site)
            drop_block(model, block, stand_in)
            repair.order = self._order_of(model)

    def _narrow(
        self, model: nn.Module, widths: Mapping[str, Width], before: Drops, shared: Sequence[str], repair: WidthRepair
    ) -> None:
        if not widths:
            return
        groups = still_there([self.groups[name] for name in widths], model)
        dropped, gone = dropped_blocks(model), self._gone(model)
        choices = choose(given_cuts(groups, self.dense, widths), self._scores_after(model, before))
        uncut = copy_model(model) if len(dropped) > len(emptied_blocks(model)) else self.dense
        cut(model, choices)
        order = self._order_of(model)

        def join(layer: str) -> tuple[ActivationPoint, Joint] | None:
            home = home_of(layer, dropped)
            return self._join(layer) if home is None else joining_point(model, layer, home, self.example, order)

        def aim_at(layer: str, point: ActivationPoint, joint: Joint) -> tuple[ActivationPoint, Joint | None]:
            dense_joint = joint if home_of(layer, dropped) is None else None
            return goal_of(layer, point, joint, gone, self.order, lambda: dense_joint)

        first = first_reader(choices, order)
        others = (
            drifted_layers(model, first, order, emptied_blocks(model), self.order) if repair == "all_layers" else []
        )
        sites = reader_sites(model, choices, order, join, aim_at, others)
        norms = norms_to_reestimate(model, order, first, sites)
        outer, inner = (self._sequence(model, reference, shared) for reference in (self.dense, uncut))
        inner.known = outer.known
        # a site inside a stand-in is repaired towards the model before the cut: the dense model has no such layer
        is_inner = {site: home_of(site.goal.module, dropped) is not None for site in sites}
        with self.metered(model), self.metered(self.dense):
            outer.look_at({site for site in sites if not is_inner[site]})
            for site, names in itertools.zip_longest(sites, norms):
                outer.reestimate(names)
                if site is not None:
                    (inner if is_inner[site] else outer).fit(site)

    def _order_of(self, model: nn.Module) -> list[str]:
        """Returns the dense model's order of calls, with the layers of bypasses for those of the dropped blocks."""
        stand_ins, names = stand_ins_of(model), []
        for name in self.order:
            if home_of(name, stand_ins) is None:
                layers = stand_ins[name].named_children() if name in stand_ins else ()
                names += [name, *(f"{name}.{layer}" for layer, _ in layers)]
        return names

    def _depth_site(self, model: nn.Module, block: str, aims_at_dense: bool = True) -> Site | None:
        """Returns the layer to refit when the block is dropped, or None; sites aimed at the dense model are kept."""
        order = self._order_of(model)
        if not aims_at_dense:
            return depth_site(model, block, self.example, order, block)
        key = frozenset(order), block
        if key not in self._depth_sites:
            goal = last_gone_after(block, self._gone(model), self.order)
            self._depth_sites[key] = depth_site(model, block, self.example, order, goal)
        return self._depth_sites[key]

    def _join(self, layer: str) -> tuple[ActivationPoint, Joint] | None:
        """Returns where the output of a layer joins the stream; the same for all plans, so it is looked up once."""
        if layer not in self._joins:
            home = home_of(layer, self.blocks)
            self._joins[layer] = joining_point(self.dense, layer, home, self.example, self.order)
        return self._joins[layer]

    def _scores_after(self, model: nn.Module, before: Drops) -> dict[str, Tensor]:
        """Returns the scores of all groups that are left in the model; plans with the same drops before share them."""
        key = tuple(before.items())
        if key not in self._scores:
            groups = still_there(list(self.groups.values()), model)
            with self.metered(model):
                self._scores[key] = score_groups(model, groups, IMPORTANCE, self.task, self._batches, self.context.seed)
        return self._scores[key]

    def _gone(self, model: nn.Module) -> list[str]:
        """Returns the dropped blocks without a stand-in that hand on the stream before them unchanged."""
        return [block for block in emptied_blocks(model) if block in self._in_line]

    @cached_property
    def _in_line(self) -> set[str]:
        return in_line(self.dense, self.blocks, self.example, self.order)

    @cached_property
    def _repaired_for(self) -> dict[str, int]:
        """Returns, by block, the place in `order` of the layer to refit once the block is dropped, or else its own."""
        sites = {block: self._depth_site(self.dense, block) for block in self.blocks}
        return {block: self.order.index(site.layer if site else block) for block, site in sites.items()}

    def metered(self, model: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which the passes of the model's blocks are counted.

        Do not deep-copy a model while it is metered: the copy would still call the original's blocks.
        """
        dropped = dropped_blocks(model)
        return metered(self.meter, model, [block for block in self.blocks if block not in dropped])

    def _sequence(self, model: nn.Module, reference: nn.Module, shared: Sequence[str]) -> RepairSequence:
        known = {key: value for key, value in self._outputs.items() if key[0] in shared}
        is_dense = reference is self.dense
        goals = self._dense_goals if is_dense else [{} for _ in self.calibration]
        aim = Aim(reference, goals, self._outputs if is_dense else {})
        return RepairSequence(model, aim, self.calibration, self.blocks, self._order_of(model), known)

    def unchanged(self, drops: Drops, widths: Mapping[str, Width]) -> list[str]:
        """Returns the leading blocks of a plan that compute what they compute in the dense model."""
        changed = [self._first_layer(self.groups[name]) for name in widths]
        changed += [self._repaired_for[block] for block in drops]
        first = min(changed, default=len(self.order))
        return [block for block in self.blocks if self._end_of(block) < first]

    def _first_layer(self, group: ChannelGroup) -> int:
        places = [self.order.index(slot.module) for slot in group.slots if slot.module in self.order]
        return min(places, default=0) if len(places) == len(group.slots) else 0

    def _end_of(self, block: str) -> int:
        return max(place for place, name in enumerate(self.order) if name == block or name.startswith(f"{block}."))

    @torch.no_grad()
    def dense_outputs(self, batches: Sequence[Inputs]) -> Outputs:
        """Returns the outputs of the dense model's blocks, by the name of the block and the index of the batch."""
        outputs: Outputs = {}
        with self.metered(self.dense), ExitStack() as stack:
            current: list[int] = []
            for block in self.blocks:
                stack.enter_context(forward_replaced(self.dense.get_submodule(block), keeping(outputs, block, current)))
            for number, inputs in enumerate(batches):
                current[:] = [number]
                self.dense(*inputs)
        return outputs
