"""Repair after a cut: refit every layer that reads channels of which some are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from toolkit.blocks import find_blocks
from toolkit.channels.cut import Choice
from toolkit.stages.context import StageContext
from toolkit.stages.regression import can_be_fitted
from toolkit.stages.repair import Fitted, Point, Site, fit_layers, install
from toolkit.stages.sites import execution_order, joining_point
from toolkit.task import Task


def reader_sites(
    model: nn.Module, choices: Sequence[Choice], order: Sequence[str], join: Callable[[str], Point]
) -> list[Site]:
    """Of a model that is cut already: the layers to refit in execution `order`, and what each should aim at.

    `join` tells where a layer's output joins the stream. Where outputs were cut too, sites name those that are left.
    """
    changed = [choice for choice in choices if choice.changes]
    kept = {
        slot.module: tuple(choice.kept(slot)) for choice in changed for slot in choice.group.slots if slot.role == "out"
    }
    readers = {name for choice in changed for name in choice.group.consumers}
    layers = sorted((name for name in readers if can_be_fitted(model.get_submodule(name))), key=order.index)
    points = {layer: join(layer) for layer in layers}
    return [Site(layer, point, point, kept.get(layer, ())) for layer, point in points.items()]


def home_of(layer: str, blocks: Iterable[str]) -> str | None:
    """The block that the layer is in."""
    return next((name for name in blocks if layer.startswith(f"{name}.")), None)


def repair_readers(
    model: nn.Module, reference: nn.Module, choices: Sequence[Choice], task: Task, context: StageContext
) -> list[Fitted]:
    """Refit each layer in execution order, on the activations of the network repaired so far."""
    if not any(choice.changes for choice in choices):
        return []
    inputs = context.example_inputs(task)
    order, blocks = execution_order(model, inputs), find_blocks(model, inputs)

    def join(layer: str) -> Point:
        return joining_point(model, layer, home_of(layer, blocks), inputs, order)

    sites = reader_sites(model, choices, order, join)
    results = []
    with context.console.progress(f"channel_prune: repairing {len(sites)} layers", len(sites)) as bar:
        for site in sites:
            calibration, holdout = context.inputs(task, "calibration"), context.inputs(task, "holdout")
            (fitted,) = fit_layers(model, reference, [site], calibration, holdout)
            install(model, fitted)
            results.append(fitted)
            bar.advance()
    return results
