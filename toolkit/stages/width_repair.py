"""Repair after a cut: refit every layer that reads channels of which some are gone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from toolkit.blocks import find_blocks
from toolkit.channels.cut import Choice
from toolkit.stages.context import StageContext
from toolkit.stages.regression import can_be_fitted
from toolkit.stages.repair import Fitted, Inputs, Site, fit_layers, install
from toolkit.stages.sites import execution_order, width_site
from toolkit.task import Task


def reader_sites(
    model: nn.Module, choices: Sequence[Choice], inputs: Inputs, blocks: Sequence[str] | None = None
) -> list[Site]:
    """Of a model that is cut already: the layers to refit in execution order, and what each should aim at.

    `blocks` saves looking for them.
    """
    changed = [choice for choice in choices if choice.changes]
    order = execution_order(model, inputs)
    blocks = find_blocks(model, inputs) if blocks is None else blocks
    kept = {
        slot.module: tuple(choice.kept(slot)) for choice in changed for slot in choice.group.slots if slot.role == "out"
    }
    readers = {name for choice in changed for name in choice.group.consumers}
    layers = sorted((name for name in readers if can_be_fitted(model.get_submodule(name))), key=order.index)
    home = {layer: next((name for name in blocks if layer.startswith(f"{name}.")), None) for layer in layers}
    return [width_site(model, layer, home[layer], inputs, order, kept.get(layer, ())) for layer in layers]


def repair_readers(
    model: nn.Module, reference: nn.Module, choices: Sequence[Choice], task: Task, context: StageContext
) -> list[Fitted]:
    """Refit each layer in execution order, on the activations of the network repaired so far."""
    if not any(choice.changes for choice in choices):
        return []
    sites = reader_sites(model, choices, context.example_inputs(task))
    results = []
    with context.console.progress(f"channel_prune: repairing {len(sites)} layers", len(sites)) as bar:
        for site in sites:
            calibration, holdout = context.inputs(task, "calibration"), context.inputs(task, "holdout")
            (fitted,) = fit_layers(model, reference, [site], calibration, holdout)
            install(model, fitted)
            results.append(fitted)
            bar.advance()
    return results
