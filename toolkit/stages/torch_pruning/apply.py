"""Cuts channels with torch-pruning's own pruner, and refuses what it gets wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.blocks.find import find_blocks
from toolkit.channels.find import find_groups
from toolkit.channels.layers import is_conv, mixes_channels, num_outputs
from toolkit.channels.outputs import output_layers
from toolkit.channels.patterns import matches_any
from toolkit.channels.proof import check_cut
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import all_trained, evaluating
from toolkit.repair.batch_norm import reestimate_batch_norms
from toolkit.stages.context import StageContext
from toolkit.stages.detail import CutGroup, Target
from toolkit.stages.torch_pruning.detail import TorchPruningDetail
from toolkit.stages.torch_pruning.peer import Peer, PeerCut
from toolkit.stages.torch_pruning.search import search_pruning_ratio
from toolkit.stages.torch_pruning.settings import TorchPruning
from toolkit.tasks.task import Task


def apply_torch_pruning(
    model: nn.Module, task: Task, config: TorchPruning, context: StageContext
) -> tuple[nn.Module, TorchPruningDetail]:
    """Returns a copy that torch-pruning has cut to the target, or the model itself if it is small enough already.

    Raises:
        StageError: torch-pruning fails, the target is missed, or the cut model does not compute what it should.
    """
    before = context.macs_ratio(model)
    settings = {"importance": config.importance, "global_pruning": config.global_pruning, "round_to": config.round_to}
    if before <= config.macs_ratio:
        return model, TorchPruningDetail(**settings, macs_ratio=Target(asked=config.macs_ratio, achieved=before))
    peer = _peer(model, task, config, context)
    ratio, peer_cut = search_pruning_ratio(peer, config, context)
    check_cut(model, peer_cut.model, peer_cut.parts, context.example_inputs(task), context.other_paths(task, model))
    num_norms = 0
    if config.batch_norm == "reestimate":
        num_norms = reestimate_batch_norms(peer_cut.model, context.inputs(task, "calibration"))
    achieved = context.macs_ratio(peer_cut.model)
    _check_macs(achieved, peer_cut, config)
    detail = TorchPruningDetail(
        **settings,
        pruning_ratio=ratio,
        groups=tuple(_groups(peer_cut, model, context.dense)),
        fixed=tuple(peer.fixed),
        macs_ratio=Target(asked=config.macs_ratio, achieved=achieved),
        batch_norms_reestimated=num_norms,
    )
    return peer_cut.model.eval(), detail


def _peer(model: nn.Module, task: Task, config: TorchPruning, context: StageContext) -> Peer:
    """Returns torch-pruning with what it has to be told: layers to keep, attention heads, and gradients."""
    inputs = context.example_inputs(task)
    layers = [name for name, module in model.named_modules() if mixes_channels(module)]
    for pattern in config.exclude:
        if not any(matches_any(name, (pattern,)) for name in layers):
            raise StageError(f"exclude: {pattern!r} matches no layer; the layers are: {', '.join(layers)}")
    protected = [name for name in layers if matches_any(name, (*task.protected, *config.exclude))]
    structure = find_groups(model, inputs, find_blocks(model, inputs), task.protected)
    return Peer(
        model,
        inputs,
        config,
        context.seed,
        fixed=tuple(dict.fromkeys([*protected, *output_layers(model, inputs)])),
        attentions=structure.of_kind("attention"),
        gradients=_gradients(model, task, context) if config.importance == "group_taylor" else {},
    )


def _gradients(model: nn.Module, task: Task, context: StageContext) -> dict[str, Tensor]:
    """Returns the gradient of the task's loss, summed over the calibration batches, by parameter name."""
    trained = all_trained(copy_model(model))
    with evaluating(trained), torch.enable_grad():
        for batch in context.batches(task, "calibration"):
            task.loss(trained(*batch.inputs), batch.targets).backward()  # type: ignore[no-untyped-call]
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in trained.named_parameters()
    }


def _groups(peer_cut: PeerCut, model: nn.Module, dense: nn.Module) -> list[CutGroup]:
    """Returns the groups in the order of the model's layers.

    torch-pruning finds groups from the outputs backwards.

    model: model that was cut; the layers of its bypasses are not in the dense model.
    """
    layers = dict(model.named_modules())
    unmodified = layers | dict(dense.named_modules())
    order = {name: place for place, name in enumerate(layers)}
    return [
        CutGroup(
            name=group.name,
            kind="conv" if is_conv(layers[group.name]) else "linear",
            original=num_outputs(unmodified[group.name]),
            before=group.before,
            kept=len(group.kept),
            indices=group.kept,
        )
        for group in sorted(peer_cut.groups, key=lambda group: order[group.name])
    ]


def _check_macs(achieved: float, peer_cut: PeerCut, config: TorchPruning) -> None:
    if abs(achieved - config.macs_ratio) <= config.macs_tolerance:
        return
    num_cut = sum(len(group.kept) < group.before for group in peer_cut.groups)
    instead = "choose another importance" if config.global_pruning else "set global_pruning: true"
    raise StageError(
        f"macs_ratio {config.macs_ratio} was asked for and {achieved:.4f} is the nearest that torch-pruning reaches "
        f"(it cut {num_cut} of {len(peer_cut.groups)} groups), a miss of more than macs_tolerance "
        f"{config.macs_tolerance}; lower round_to ({config.round_to}), which it rounds widths down to, "
        f"{instead}, or raise macs_tolerance"
    )
