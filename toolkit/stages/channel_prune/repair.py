"""Repairs a model after a cut: refits every layer that reads channels of which some were removed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

from torch import nn

from toolkit.blocks.dropped import dropped_blocks, emptied_blocks
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import KeptUnits
from toolkit.hooks.order import execution_order
from toolkit.hooks.points import ActivationPoint, Inputs, capture
from toolkit.hooks.routes import routed_modules
from toolkit.repair.batch_norm import norms_to_reestimate, reestimate_batch_norms
from toolkit.repair.fit import Fitted, fit_layers, install
from toolkit.repair.joint import Joint, find_joint
from toolkit.repair.readers import in_line
from toolkit.repair.site import Site
from toolkit.repair.sites import drifted_layers, first_reader, goal_of, home_of, joining_point, reader_sites
from toolkit.stages.channel_prune.settings import ChannelPrune
from toolkit.stages.context import StageContext
from toolkit.tasks.task import Task


def repair_readers(
    model: nn.Module,
    reference: nn.Module,
    choices: Sequence[KeptUnits],
    task: Task,
    config: ChannelPrune,
    context: StageContext,
) -> tuple[list[Fitted], int]:
    """Returns the fits, and the number of BatchNorms whose statistics were estimated again.

    Layers are refitted in execution order, on the activations of the network repaired so far; BatchNorm statistics
    between two of them are estimated again in between. The goal is the residual stream of the unmodified model. It is
    that of `reference`, the model before the stage, if an earlier stage has made the stream narrower, and inside of
    stand-ins, because the unmodified model has no counterpart there.
    """
    if not any(choice.changes for choice in choices):
        return [], 0
    inputs = context.example_inputs(task)
    sites, norms = _sites_and_norms(model, reference, choices, task, config, context)
    results: list[Fitted] = []
    num_norms = 0
    with context.console.progress(f"channel_prune: repairing {len(sites)} layers", len(sites)) as bar:
        for site, names in itertools.zip_longest(sites, norms):
            if config.batch_norm == "reestimate":
                num_norms += reestimate_batch_norms(model, context.inputs(task, "calibration"), names)
            if site is None:
                break
            goal_model = context.dense if _has_goal(context.dense, reference, site, inputs) else reference
            data = context.inputs(task, "calibration"), context.inputs(task, "holdout")
            (fitted,) = fit_layers(model, goal_model, [site], *data)
            install(model, fitted)
            results.append(fitted)
            bar.advance()
    return results, num_norms


def _sites_and_norms(
    model: nn.Module,
    reference: nn.Module,
    choices: Sequence[KeptUnits],
    task: Task,
    config: ChannelPrune,
    context: StageContext,
) -> tuple[list[Site], list[list[str]]]:
    """Returns what is refitted, and the BatchNorms to estimate again before each refit and at the end."""
    inputs = context.example_inputs(task)
    full_order, blocks = execution_order(model, inputs), find_blocks(model, inputs)
    routed = routed_modules(model, context.varied_inputs(task, "calibration", "holdout"), context.dense)
    order = [name for name in full_order if name not in routed]  # their rows are others than the goal's
    dense_order = execution_order(context.dense, inputs)
    gone = in_line(context.dense, emptied_blocks(model), inputs, dense_order)
    places = dropped_blocks(model)

    def join(layer: str) -> tuple[ActivationPoint, Joint] | None:
        return joining_point(model, layer, home_of(layer, blocks), inputs, order)

    def aim_at(layer: str, point: ActivationPoint, joint: Joint) -> tuple[ActivationPoint, Joint | None]:
        """Returns the goal of a layer; a layer of a stand-in has no sum to look for in the unmodified model."""
        find = partial(find_joint, context.dense, layer, point, inputs, dense_order)
        return goal_of(layer, point, joint, gone, dense_order, find if home_of(layer, places) is None else lambda: None)

    first_read = first_reader(choices, order)
    others = (
        drifted_layers(model, first_read, order, emptied_blocks(model), dense_order)
        if config.repair == "all_layers"
        else []
    )
    sites = reader_sites(model, choices, order, join, aim_at, others) if config.repair != "none" else []
    sites = [site for site in sites if site.layer not in others or _has_goal(context.dense, reference, site, inputs)]
    return sites, norms_to_reestimate(model, full_order, first_read, sites)


def _has_goal(dense: nn.Module, reference: nn.Module, site: Site, inputs: Inputs) -> bool:
    """Says whether the goal of the site exists in the unmodified model, with the same width as in `reference`."""
    if home_of(site.goal.module, dropped_blocks(reference)) is not None:
        return False
    widths = [capture(model, inputs, {site.goal})[site.goal].shape for model in (dense, reference)]
    return widths[0] == widths[1]
