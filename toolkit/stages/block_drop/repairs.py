"""What makes up for a block that goes: a layer before it that is refitted, a bypass in its place, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from toolkit.base.errors import StageError
from toolkit.base.settings import Detail
from toolkit.blocks.drop import block_end
from toolkit.blocks.dropped import emptied_blocks
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, Inputs
from toolkit.repair.bypass import BypassSite, FittedBypass, fit_bypasses
from toolkit.repair.fit import Fitted, fit_layers, installed
from toolkit.repair.readers import in_line
from toolkit.repair.sites import depth_site, last_gone_after
from toolkit.repair.stream import bypass_arguments
from toolkit.stages.block_drop.settings import RepairKind
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


@dataclass(frozen=True)
class BlockRepair:
    """`fold`: the refitted layer, which joins the stream before the block. `bypass`: what is put in its place."""

    fold: Fitted | None = None
    bypass: FittedBypass | None = None

    @property
    def calibration_error(self) -> tuple[float, float] | None:
        """Of the stream behind the block's place: before, as the block is just dropped, and after all repairs."""
        pairs = [one.calibration_error for one in (self.fold, self.bypass) if one is not None]
        return (pairs[0][0], pairs[-1][1]) if pairs else None

    @property
    def holdout_error(self) -> tuple[float, float] | None:
        pairs = [one.holdout_error for one in (self.fold, self.bypass) if one is not None]
        if not pairs or pairs[0] is None or pairs[-1] is None:
            return None
        return pairs[0][0], pairs[-1][1]

    def detail(self) -> Detail | None:
        """For the record of the round; None where there is no repair."""
        errors = {"calibration_error": self.calibration_error, "holdout_error": self.holdout_error}
        known = {name: {"before": pair[0], "after": pair[1]} for name, pair in errors.items() if pair is not None}
        if self.bypass is None:
            return None if self.fold is None else {"kind": "fold", **self.fold.detail()}
        place = {"bypass": self.bypass.site.block, "rank": self.bypass.site.arguments.rank}
        if self.fold is None:
            return {"layer": self.bypass.site.block, "kind": "bypass", **place, **known}
        return {**self.fold.detail(), "kind": "fold_and_bypass", **place, **known}


NO_REPAIR = BlockRepair()


def repair_blocks(
    model: nn.Module,
    reference: nn.Module,
    blocks: Sequence[str],
    task: Task,
    context: StageContext,
    kind: RepairKind,
    rank: int | None = None,
) -> dict[str, BlockRepair]:
    """A repair for every block, each fitted as if that block alone went. Nothing is changed yet.

    `blocks` are blocks that `find_blocks` found; `reference` is another model than `model`. With `fold_and_bypass` the
    bypass is fitted to the folded model, and it is left alone where that is better. A repair that lifts the error on
    held-out data is not made.

    Raises:
        StageError: the rank is more than a stream's channels, or activations are not finite numbers.
    """
    inputs = context.example_inputs(task)
    data = list(context.inputs(task, "calibration")), list(context.inputs(task, "holdout"))
    goals = _goals(model, blocks, inputs, context)
    folds: dict[str, Fitted] = {}
    if kind in ("fold", "fold_and_bypass"):
        order = execution_order(model, inputs)
        sites = {block: depth_site(model, block, inputs, order, goals[block]) for block in blocks}
        found = {block: site for block, site in sites.items() if site is not None}
        fitted = fit_layers(model, reference, list(found.values()), *data)
        folds = {block: one for block, one in zip(found, fitted, strict=True) if one.damping is not None}
    repairs = {block: [BlockRepair(fold=fold)] for block, fold in folds.items()}
    if kind in ("bypass", "fold_and_bypass"):
        bypasses = bypass_sites(model, blocks, inputs, goals, rank)
        alone = fit_bypasses(model, reference, list(bypasses.values()), *data)
        for block, one in zip(bypasses, alone, strict=True):
            if one.is_worthwhile:
                repairs.setdefault(block, []).append(BlockRepair(bypass=one))
        for block in folds.keys() & bypasses.keys():
            with installed(model, folds[block]):
                (one,) = fit_bypasses(model, reference, [bypasses[block]], *data)
            if one.is_worthwhile:
                repairs[block].append(BlockRepair(folds[block], one))
    return {block: min(repairs.get(block) or [NO_REPAIR], key=_error_after) for block in blocks}


def bypass_sites(
    model: nn.Module, blocks: Sequence[str], inputs: Inputs, goals: Mapping[str, str], rank: int | None
) -> dict[str, BypassSite]:
    """Where a bypass could stand, by block; without blocks of whose stream it is not known what its channels are.

    Raises:
        StageError: the rank is more than a stream's channels.
    """
    sites = {}
    for block in blocks:
        end = block_end(model, block)
        arguments = bypass_arguments(model, block, inputs, structure=end.structure, behind=end.behind)
        if arguments is None:
            continue
        if rank is not None and rank > arguments.channels:
            raise StageError(
                f"rank is {rank}, but the stream at {block} has {arguments.channels} channels: "
                f"at most {arguments.channels}"
            )
        goal = ActivationPoint(goals.get(block, block), "output")
        sites[block] = BypassSite(block, goal, arguments.model_copy(update={"rank": rank}))
    return sites


def _goals(model: nn.Module, blocks: Sequence[str], inputs: Inputs, context: StageContext) -> dict[str, str]:
    """The block whose output in the reference is the goal; what stands in a place and works has a goal of its own."""
    dense_order = execution_order(context.dense, inputs)
    gone = in_line(context.dense, emptied_blocks(model), inputs, dense_order)
    return {block: last_gone_after(block, gone, dense_order) for block in blocks}


def _error_after(repair: BlockRepair) -> float:
    pair = repair.calibration_error
    return 0.0 if pair is None else pair[1]
