"""The candidates of a round: the model without one block, repaired, and how much of it stays as it is."""

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
    """The model without `block`, after its repair. Its first `shared` blocks run as in the unchanged model.

    `holder`: the block with the refitted layer, which comes next; `rest`: where in it the stream can be seen that,
    plus the layer's output, is the holder's output.
    """

    block: str
    repair: BlockRepair
    shared: int
    holder: str | None = None
    rest: ActivationPoint | None = None

    @property
    def fitted(self) -> Fitted | None:
        """The layer that is refitted."""
        return self.repair.fold

    @property
    def stand_in(self) -> LinearBypass | None:
        """What is put in the place of the block; None is nothing."""
        return None if self.repair.bypass is None else self.repair.bypass.module


@contextmanager
def applied(model: nn.Module, variant: Variant) -> Iterator[None]:
    """The model is that variant for the length of the `with`."""
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
    """A variant per block, repaired on calibration data where that can be done and held-out data gains too."""
    repairs = repair_blocks(model, reference, blocks, task, context, kind, rank)
    inputs = context.example_inputs(task)
    order = execution_order(model, inputs)
    return {block: _variant(model, block, blocks, repairs[block], inputs, order) for block in blocks}


def raw_variants(blocks: Sequence[str]) -> dict[str, Variant]:
    """A variant per block, without repair."""
    return {block: Variant(block, NO_REPAIR, shared) for shared, block in enumerate(blocks)}


def _variant(
    model: nn.Module, block: str, blocks: Sequence[str], repair: BlockRepair, inputs: Inputs, order: list[str]
) -> Variant:
    before = blocks[: blocks.index(block)]
    fitted = repair.fold
    if fitted is None:
        return Variant(block, repair, len(before))
    layer = fitted.site.layer
    holder = next((one for one in before if layer.startswith(f"{one}.")), None)
    if holder is None:
        return Variant(block, repair, sum(order.index(one) < order.index(layer) for one in before))
    is_plain = type(model.get_submodule(layer)) is nn.Linear and fitted.site.joint == PLAIN
    rest = rest_point(model, layer, holder, inputs, order) if is_plain else None
    return Variant(block, repair, before.index(holder), holder, rest)
