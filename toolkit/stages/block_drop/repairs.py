"""Makes up for a dropped block: refits a layer before it, puts a bypass in its place, or both."""

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
from toolkit.hooks.routes import routed_modules
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
    """Holds the repair of one dropped block.

    fold: the refitted layer, which joins the stream before the block.
    bypass: the linear bypass in the place of the block.
    """

    fold: Fitted | None = None
    bypass: FittedBypass | None = None

    @property
    def calibration_error(self) -> tuple[float, float] | None:
        """Returns the error of the stream behind the block without and with the repair, on calibration data."""
        pairs = [repair.calibration_error for repair in (self.fold, self.bypass) if repair is not None]
        return (pairs[0][0], pairs[-1][1]) if pairs else None

    @property
    def holdout_error(self) -> tuple[float, float] | None:
        """Returns the error of the stream behind the block without and with the repair, on held-out data."""
        pairs = [repair.holdout_error for repair in (self.fold, self.bypass) if repair is not None]
        if not pairs or pairs[0] is None or pairs[-1] is None:
            return None
        return pairs[0][0], pairs[-1][1]

    def detail(self) -> Detail | None:
        """Returns the repair for the record, or None if there is none."""
        errors = {"calibration_error": self.calibration_error, "holdout_error": self.holdout_error}
        pairs = {name: {"before": pair[0], "after": pair[1]} for name, pair in errors.items() if pair is not None}
        if self.bypass is None:
            return None if self.fold is None else {"kind": "fold", **self.fold.detail()}
        place = {"bypass": self.bypass.site.block, "rank": self.bypass.site.arguments.rank}
        if self.fold is None:
            return {"layer": self.bypass.site.block, "kind": "bypass", **place, **pairs}
        return {**self.fold.detail(), "kind": "fold_and_bypass", **place, **pairs}


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
    """Returns a repair for every block, fitted as if only this block were dropped; no model is changed.

    With `fold_and_bypass` the bypass is fitted to the folded model, and used alone where that is better. A repair that
    increases the error on held-out data is not made.

    reference: another model than `model`, whose streams are the goal.
    blocks: blocks that `find_blocks` found.
    kind: how a dropped block is made up for, as the setting `repair` of the stage says.

    Raises:
        StageError: the rank exceeds the channels of a stream, or activations are not finite numbers.
    """
    inputs = context.example_inputs(task)
    data = list(context.inputs(task, "calibration")), list(context.inputs(task, "holdout"))
    goals = _goals(model, blocks, inputs, context)
    folds: dict[str, Fitted] = {}
    if kind in ("fold", "fold_and_bypass"):
        routed = routed_modules(model, context.varied_inputs(task, "calibration", "holdout"), reference)
        order = [name for name in execution_order(model, inputs) if name in blocks or name not in routed]
        sites = {block: depth_site(model, block, inputs, order, goals[block]) for block in blocks}
        fold_sites = {block: site for block, site in sites.items() if site is not None}
        fitted = fit_layers(model, reference, list(fold_sites.values()), *data)
        folds = {
            block: fitted_repair
            for block, fitted_repair in zip(fold_sites, fitted, strict=True)
            if fitted_repair.damping is not None
        }
    repairs = {block: [BlockRepair(fold=fold)] for block, fold in folds.items()}
    if kind in ("bypass", "fold_and_bypass"):
        bypasses = bypass_sites(model, blocks, inputs, goals, rank)
        alone = fit_bypasses(model, reference, list(bypasses.values()), *data)
        for block, fitted_repair in zip(bypasses, alone, strict=True):
            if fitted_repair.is_worthwhile:
                repairs.setdefault(block, []).append(BlockRepair(bypass=fitted_repair))
        for block in folds.keys() & bypasses.keys():
            with installed(model, folds[block]):
                (fitted_repair,) = fit_bypasses(model, reference, [bypasses[block]], *data)
            if fitted_repair.is_worthwhile:
                repairs[block].append(BlockRepair(folds[block], fitted_repair))
    return {block: min(repairs.get(block) or [NO_REPAIR], key=_error_after) for block in blocks}


def bypass_sites(
    model: nn.Module, blocks: Sequence[str], inputs: Inputs, goals: Mapping[str, str], rank: int | None
) -> dict[str, BypassSite]:
    """Returns where a bypass can stand, by block, without blocks whose stream has unknown channels.

    Raises:
        StageError: the rank exceeds the channels of a stream.
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
    """Returns, by block, the block whose output in the reference is the goal.

    A stand-in that does work has its own goal: the output of the block that it replaces.
    """
    dense_order = execution_order(context.dense, inputs)
    gone = in_line(context.dense, emptied_blocks(model), inputs, dense_order)
    return {block: last_gone_after(block, gone, dense_order) for block in blocks}


def _error_after(repair: BlockRepair) -> float:
    pair = repair.calibration_error
    return 0.0 if pair is None else pair[1]
