"""Repair after a cut: refit every layer that reads channels of which some are gone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from toolkit.blocks.dropped import dropped_blocks
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import KeptUnits
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, capture
from toolkit.repair.fit import Fitted, Site, fit_layers, install
from toolkit.repair.joint import Joint
from toolkit.repair.sites import goal_of, home_of, joining_point, reader_sites
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


def repair_readers(
    model: nn.Module, reference: nn.Module, choices: Sequence[KeptUnits], task: Task, context: StageContext
) -> list[Fitted]:
    """Refit each layer in execution order, on the activations of the network repaired so far.

    The goal is the unmodified model's stream. Where an earlier stage has made that stream narrower, its counterpart
    is not known: there the goal is that of `reference`, the model as it came into the stage.
    """
    if not any(choice.changes for choice in choices):
        return []
    inputs = context.example_inputs(task)
    order, blocks = execution_order(model, inputs), find_blocks(model, inputs)
    dense_order, gone = execution_order(context.dense, inputs), dropped_blocks(model)

    def join(layer: str) -> tuple[ActivationPoint, Joint]:
        return joining_point(model, layer, home_of(layer, blocks), inputs, order)

    def aim_at(layer: str, point: ActivationPoint, joint: Joint) -> tuple[ActivationPoint, Joint | None]:
        return goal_of(context.dense, layer, point, joint, inputs, gone, dense_order)

    def is_as_wide(site: Site) -> bool:
        widths = [capture(one, inputs, {site.goal})[site.goal].shape for one in (context.dense, reference)]
        return widths[0] == widths[1]

    sites = reader_sites(model, choices, order, join, aim_at)
    results = []
    with context.console.progress(f"channel_prune: repairing {len(sites)} layers", len(sites)) as bar:
        for site in sites:
            calibration, holdout = context.inputs(task, "calibration"), context.inputs(task, "holdout")
            aim = context.dense if is_as_wide(site) else reference
            (fitted,) = fit_layers(model, aim, [site], calibration, holdout)
            install(model, fitted)
            results.append(fitted)
            bar.advance()
    return results
