"""Make layers physically narrower: MLP hidden units, attention heads, head dimensions (cut by torch-pruning)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from toolkit.blocks import find_blocks
from toolkit.errors import StageError
from toolkit.recipe import ChannelPrune, Keep
from toolkit.stages.channel_groups import ChannelGraph, ChannelGroup
from toolkit.stages.context import Detail, StageContext
from toolkit.stages.importance import choose_channels, score_channels
from toolkit.stages.repair import Fitted, Inputs, fit_layers, install
from toolkit.stages.sites import execution_order, width_site
from toolkit.task import Split, Task

SEARCH_STEPS = 24


@dataclass(frozen=True)
class Cut:
    """One group's new width: `asked` is before rounding, of the unmodified width. `kind` is a key of `Keep`."""

    group: ChannelGroup
    kind: str
    original: int
    before: int
    asked: float
    kept: int


def apply_channel_prune(
    model: nn.Module, task: Task, config: ChannelPrune, context: StageContext
) -> tuple[nn.Module, Detail]:
    """Cut every group to its share of the unmodified model's width, then repair what reads the cut channels.

    Raises:
        StageError: nothing can be cut, or `macs_ratio` is missed by more than `macs_tolerance`.
    """
    inputs = context.example_inputs(task)
    graph = ChannelGraph(model, inputs)
    groups = graph.groups(task.protected)
    if not groups:
        raise StageError("the model has no MLP or attention whose width can be cut on its own")
    original = {g.name: g for g in ChannelGraph(context.dense, inputs).groups(task.protected)}
    _check_kinds(groups, config)
    reference = copy.deepcopy(model)
    is_there = config.macs_ratio is not None and context.macs_ratio(model) <= config.macs_ratio
    if config.keep is not None or is_there:
        plan = plan_cuts(groups, original, config.keep or Keep(), config.round_to)
    else:
        plan = _search(model, groups, original, task, config, context)
    scores = score_channels(model, groups, config.importance, _inputs(task, "calibration", context), context.seed)
    indices = _cut(graph, plan, scores)
    repairs = _repair(model, reference, [c.group for c in plan if c.kept < c.before], task, config, context)
    achieved = context.macs_ratio(model)
    if config.macs_ratio is not None and not is_there and abs(achieved - config.macs_ratio) > config.macs_tolerance:
        raise StageError(
            f"macs_ratio {config.macs_ratio} was asked for and {achieved:.4f} reached, a miss of more than "
            f"macs_tolerance {config.macs_tolerance}; lower round_to ({config.round_to}), add kinds to scope "
            f"({', '.join(config.scope)}), or drop blocks first"
        )
    return model, {
        "importance": config.importance,
        "round_to": config.round_to,
        "groups": [_describe(cut, indices) for cut in plan],
        "macs_ratio": {"asked": config.macs_ratio, "achieved": achieved},
        "repairs": [fitted.detail() for fitted in repairs],
    }


def _check_kinds(groups: list[ChannelGroup], config: ChannelPrune) -> None:
    """Every kind of channel that is to be cut is there."""
    there = {"mlp"} if any(group.kind == "mlp" for group in groups) else set()
    if any(group.kind == "attention" for group in groups):
        there |= {"heads", "head_dim"}
    wanted = config.scope if config.keep is None else [kind for kind, ratio in config.keep if ratio < 1.0]
    missing = [kind for kind in wanted if kind not in there]
    if missing:
        raise StageError(
            f"the model has no {' and no '.join(missing)} that can be cut on its own; "
            f"what can be cut here: {', '.join(sorted(there)) or 'nothing'}"
        )


def _describe(cut: Cut, indices: dict[str, list[int]]) -> Detail:
    return {
        "name": cut.group.name,
        "kind": cut.kind,
        "original": cut.original,
        "before": cut.before,
        "asked": cut.asked,
        "kept": cut.kept,
        "indices": indices[cut.group.name],
    }


def _inputs(task: Task, split: Split, context: StageContext) -> Iterator[Inputs]:
    return (batch.inputs for batch in context.batches(task, split))


def rounded(asked: float, multiple: int, current: int) -> int:
    """`asked` to the nearest multiple, at least one multiple, and never more than there is."""
    if asked >= current:
        return current
    return min(max(multiple, multiple * round(asked / multiple)), current)


def plan_cuts(groups: list[ChannelGroup], original: dict[str, ChannelGroup], keep: Keep, round_to: int) -> list[Cut]:
    """What every group is cut to; an attention group has one entry for its heads and one for its head dimensions."""
    cuts = []
    for group in groups:
        was = original[group.name]
        if group.kind == "mlp":
            asked = keep.mlp * was.width
            cuts.append(Cut(group, "mlp", was.width, group.width, asked, rounded(asked, round_to, group.width)))
            continue
        asked = keep.heads * was.num_heads
        cuts.append(Cut(group, "heads", was.num_heads, group.num_heads, asked, rounded(asked, 1, group.num_heads)))
        asked = keep.head_dim * was.head_dim
        kept = rounded(asked, round_to, group.head_dim)
        cuts.append(Cut(group, "head_dim", was.head_dim, group.head_dim, asked, kept))
    return cuts


def _cut(graph: ChannelGraph, plan: list[Cut], scores: dict[str, Tensor]) -> dict[str, list[int]]:
    """Prune every group as planned; the kept channel indices of each, in its width before this stage."""
    kept: dict[str, dict[str, int]] = {}
    groups = {cut.group.name: cut.group for cut in plan}
    for cut in plan:
        kept.setdefault(cut.group.name, {})[cut.kind] = cut.kept
    indices = {}
    for name, group in groups.items():
        num_heads = kept[name].get("heads", 1)
        channels = choose_channels(group, scores[name], num_heads, kept[name].get("head_dim", kept[name].get("mlp", 0)))
        graph.keep(group, channels, num_heads)
        indices[name] = channels
    return indices


def _search(
    model: nn.Module,
    groups: list[ChannelGroup],
    original: dict[str, ChannelGroup],
    task: Task,
    config: ChannelPrune,
    context: StageContext,
) -> list[Cut]:
    """Bisect the common keep ratio of `scope` for the MACs nearest to the target; widths are tried on a copy."""
    assert config.macs_ratio is not None
    low, high = 0.0, 1.0
    best: tuple[float, list[Cut]] | None = None
    seen: dict[tuple[int, ...], float] = {}
    for _ in range(SEARCH_STEPS):
        share = max((low + high) / 2, 1e-6)
        plan = plan_cuts(groups, original, Keep(**dict.fromkeys(config.scope, share)), config.round_to)
        widths = tuple(cut.kept for cut in plan)
        if widths not in seen:
            seen[widths] = _macs_ratio_of(model, plan, task, context)
        miss = seen[widths] - config.macs_ratio
        if best is None or abs(miss) < best[0]:
            best = (abs(miss), plan)
        low, high = (low, share) if miss > 0 else (share, high)
    assert best is not None
    return best[1]


def _macs_ratio_of(model: nn.Module, plan: list[Cut], task: Task, context: StageContext) -> float:
    trial = copy.deepcopy(model)
    graph = ChannelGraph(trial, context.example_inputs(task))
    scores = score_channels(trial, [cut.group for cut in plan], "random", (), 0)
    _cut(graph, plan, scores)
    return context.macs_ratio(trial)


def _repair(
    model: nn.Module,
    reference: nn.Module,
    groups: list[ChannelGroup],
    task: Task,
    config: ChannelPrune,
    context: StageContext,
) -> list[Fitted]:
    """Refit each consumer in execution order, on the activations of the network repaired so far."""
    if config.repair == "none":
        return []
    inputs = context.example_inputs(task)
    order = execution_order(model, inputs)
    blocks = find_blocks(model, inputs)
    layers = sorted({name for group in groups for name in group.consumers}, key=order.index)
    results = []
    with context.console.progress(f"channel_prune: repairing {len(layers)} layers", len(layers)) as bar:
        for layer in layers:
            block = next((name for name in blocks if layer.startswith(f"{name}.")), None)
            site = width_site(model, layer, block, inputs, order)
            calibration, holdout = _inputs(task, "calibration", context), _inputs(task, "holdout", context)
            (fitted,) = fit_layers(model, reference, [site], calibration, holdout)
            install(model, fitted)
            results.append(fitted)
            bar.advance()
    return results
