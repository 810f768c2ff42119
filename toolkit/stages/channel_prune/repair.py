"""Repair after a cut: refit every layer that reads channels of which some are gone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import KeptUnits
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint
from toolkit.repair.fit import Fitted, fit_layers, install
from toolkit.repair.sites import home_of, joining_point, reader_sites
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


def repair_readers(
    model: nn.Module, reference: nn.Module, choices: Sequence[KeptUnits], task: Task, context: StageContext
) -> list[Fitted]:
    """Refit each layer in execution order, on the activations of the network repaired so far."""
    if not any(choice.changes for choice in choices):
        return []
    inputs = context.example_inputs(task)
    order, blocks = execution_order(model, inputs), find_blocks(model, inputs)

    def join(layer: str) -> ActivationPoint:
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
