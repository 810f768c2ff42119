"""The candidates of a round: the model without one block, repaired, and how much of it stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from toolkit.blocks.drop import block_dropped
from toolkit.blocks.dropped import dropped_blocks
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, Inputs
from toolkit.repair.fit import Fitted, fit_layers, installed
from toolkit.repair.joint import PLAIN
from toolkit.repair.sites import depth_site, last_gone_after, rest_point
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


@dataclass(frozen=True)
class Variant:
    """The model without `block`, after `fitted`. Its first `shared` blocks run as in the unchanged model.

    `holder`: the block with the refitted layer, which comes next; `rest`: where in it the stream can be seen that,
    plus the layer's output, is the holder's output.
    """

    block: str
    fitted: Fitted | None
    shared: int
    holder: str | None = None
    rest: ActivationPoint | None = None


@contextmanager
def applied(model: nn.Module, variant: Variant) -> Iterator[None]:
    """The model is that variant for the length of the `with`."""
    with installed(model, variant.fitted), block_dropped(model, variant.block):
        yield


def repaired_variants(
    model: nn.Module, reference: nn.Module, blocks: Sequence[str], task: Task, context: StageContext
) -> dict[str, Variant]:
    """A variant per block, repaired on calibration data where there is a layer for it and a fit that helps."""
    inputs = context.example_inputs(task)
    order = execution_order(model, inputs)
    dense_order, gone = execution_order(context.dense, inputs), dropped_blocks(model)
    sites = {
        block: depth_site(model, block, inputs, order, last_gone_after(block, gone, dense_order)) for block in blocks
    }
    found = {block: site for block, site in sites.items() if site is not None}
    fitted = fit_layers(
        model,
        reference,
        list(found.values()),
        context.inputs(task, "calibration"),
        context.inputs(task, "holdout"),
    )
    repairs = {block: one for block, one in zip(found, fitted, strict=True) if one.damping is not None}
    return {block: _variant(model, block, blocks, repairs, inputs, order) for block in blocks}


def raw_variants(blocks: Sequence[str]) -> dict[str, Variant]:
    """A variant per block, without repair."""
    return {block: Variant(block, None, shared) for shared, block in enumerate(blocks)}


def _variant(
    model: nn.Module,
    block: str,
    blocks: Sequence[str],
    repairs: Mapping[str, Fitted],
    inputs: Inputs,
    order: list[str],
) -> Variant:
    before = blocks[: blocks.index(block)]
    fitted = repairs.get(block)
    if fitted is None:
        return Variant(block, None, len(before))
    layer = fitted.site.layer
    holder = next((one for one in before if layer.startswith(f"{one}.")), None)
    if holder is None:
        return Variant(block, fitted, sum(order.index(one) < order.index(layer) for one in before))
    is_plain = type(model.get_submodule(layer)) is nn.Linear and fitted.site.joint == PLAIN
    rest = rest_point(model, layer, holder, inputs, order) if is_plain else None
    return Variant(block, fitted, before.index(holder), holder, rest)
