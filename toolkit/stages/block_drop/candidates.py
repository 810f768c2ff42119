"""Describes the candidates of a round: the model without one block, repaired, and how much of it stays unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from toolkit.blocks.drop import block_dropped
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, Inputs
from toolkit.repair.fit import Fitted, installed
from toolkit.repair.joint import PLAIN
from toolkit.repair.sites import rest_point
from toolkit.stages.block_drop.repairs import NO_REPAIR, BlockRepair, repair_blocks
from toolkit.stages.block_drop.settings import RepairKind
from toolkit.stages.context import StageContext
from toolkit.stand_ins.linear_bypass import LinearBypass
from toolkit.tasks.task import Task


@dataclass(frozen=True)
class Variant:
    """Describes the model without `block`, after its repair.

    shared: number of leading blocks that run as in the unchanged model.
    holder: the block after these that holds the refitted layer, if there is one.
    rest: point inside of `holder` where the stream can be seen that, plus the output of the layer, is the output of
        `holder`.
    """

    block: str
    repair: BlockRepair
    shared: int
    holder: str | None = None
    rest: ActivationPoint | None = None

    @property
    def fitted(self) -> Fitted | None:
        """Returns the refitted layer, if there is one."""
        return self.repair.fold

    @property
    def stand_in(self) -> LinearBypass | None:
        """Returns the module in the place of the block, or None if there is none."""
        return None if self.repair.bypass is None else self.repair.bypass.module


@contextmanager
def applied(model: nn.Module, variant: Variant) -> Iterator[None]:
    """Turns the model into the variant for the length of the `with`."""
    with installed(model, variant.fitted), block_dropped(model, variant.block, variant.stand_in):
        yield


def repaired_variants(
    model: nn.Module,
    reference: nn.Module,
    blocks: Sequence[str],
    task: Task,
    context: StageContext,
    kind: RepairKind = "fold",
    rank: int | None = None,
) -> dict[str, Variant]:
    """Returns a variant for each block, repaired on calibration data where that helps on held-out data too."""
    repairs = repair_blocks(model, reference, blocks, task, context, kind, rank)
    inputs = context.example_inputs(task)
    order = execution_order(model, inputs)
    return {block: _variant(model, block, blocks, repairs[block], inputs, order) for block in blocks}


def raw_variants(blocks: Sequence[str]) -> dict[str, Variant]:
    """Returns a variant for each block, without repair."""
    return {block: Variant(block, NO_REPAIR, shared) for shared, block in enumerate(blocks)}


def _variant(
    model: nn.Module, block: str, blocks: Sequence[str], repair: BlockRepair, inputs: Inputs, order: list[str]
) -> Variant:
    earlier = blocks[: blocks.index(block)]
    fitted = repair.fold
    if fitted is None:
        return Variant(block, repair, len(earlier))
    layer = fitted.site.layer
    holder = next((name for name in earlier if layer.startswith(f"{name}.")), None)
    if holder is None:
        return Variant(block, repair, sum(order.index(name) < order.index(layer) for name in earlier))
    is_plain = type(model.get_submodule(layer)) is nn.Linear and fitted.site.joint == PLAIN
    rest = rest_point(model, layer, holder, inputs, order) if is_plain else None
    return Variant(block, repair, earlier.index(holder), holder, rest)
