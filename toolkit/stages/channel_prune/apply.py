"""Makes layers narrower: MLP hidden units, heads, head dimensions, convolution channels, embedding widths."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from toolkit.base.errors import StageError
from toolkit.blocks.find import find_blocks
from toolkit.channels.cut import cut, parts_of
from toolkit.channels.find import find_groups, without_modules
from toolkit.channels.groups import ChannelGroup, Structure
from toolkit.channels.patterns import matches_any
from toolkit.channels.proof import check_cut
from toolkit.hooks.copies import copy_model
from toolkit.hooks.routes import routed_modules
from toolkit.stages.channel_prune.detail import ChannelPruneDetail
from toolkit.stages.channel_prune.importance import score_groups
from toolkit.stages.channel_prune.repair import repair_readers
from toolkit.stages.channel_prune.search import search_ratio
from toolkit.stages.channel_prune.settings import WIDTH_KINDS, ChannelPrune, Keep, WidthKind
from toolkit.stages.channel_prune.widths import Cut, choose, given_cuts, kinds_of, plan_cuts
from toolkit.stages.context import StageContext
from toolkit.stages.detail import RepairErrors, Target
from toolkit.tasks.task import Task

DEFAULT_SCOPE: tuple[WidthKind, ...] = ("mlp", "heads", "conv")


def apply_channel_prune(
    model: nn.Module, task: Task, config: ChannelPrune, context: StageContext
) -> tuple[nn.Module, ChannelPruneDetail]:
    """Cuts every group to its share of the unmodified model's width, then repairs the layers that read cut channels.

    Raises:
        StageError: nothing can be cut, a target is missed, or the cut model does not compute what it should.
    """
    inputs, paths = context.example_inputs(task), context.other_paths(task, model)
    all_groups = find_groups(model, inputs, find_blocks(model, inputs), task.protected, paths)
    structure = without_modules(all_groups, routed_modules(model, context.varied_inputs(task, "calibration")))
    groups = _chosen_groups(structure, config)
    scores = score_groups(
        model, groups, config.importance, task, lambda: context.batches(task, "calibration"), context.seed
    )
    already_reached = config.macs_ratio is not None and context.macs_ratio(model) <= config.macs_ratio
    if config.widths is not None:
        plan = given_cuts(groups, context.dense, config.widths)
    elif config.keep is not None or already_reached:
        plan = plan_cuts(groups, context.dense, config.keep or Keep(), config, scores)
    else:
        plan = search_ratio(model, groups, _scope(groups, config), config, context, scores)
    _check_keep(plan, config)
    choices = choose(plan, scores)
    reference = copy_model(model)
    cut(model, choices)
    check_cut(reference, model, parts_of(choices), inputs, paths)
    repairs, num_norms = repair_readers(model, reference, choices, task, config, context)
    achieved = context.known_macs_ratio(model)
    _check_macs(achieved, already_reached, plan, config)
    by_name = {choice.group.name: choice for choice in choices}
    detail = ChannelPruneDetail(
        importance=config.importance,
        allocation=config.allocation,
        round_to=config.round_to,
        groups=tuple(entry.detail(by_name[entry.group.name]) for entry in plan),
        not_cut=structure.refused,
        macs_ratio=Target(asked=config.macs_ratio, achieved=achieved),
        keep={kind: Target(asked=asked, achieved=got) for kind, (asked, got) in _shares(plan).items()},
        repairs=tuple(RepairErrors.model_validate(fitted.detail()) for fitted in repairs),
        batch_norms_reestimated=num_norms,
    )
    return model, detail


def _chosen_groups(structure: Structure, config: ChannelPrune) -> list[ChannelGroup]:
    """Returns the groups that are named, or whose names match the patterns.

    Raises:
        StageError: a kind of channel that is to be cut has no group.
    """
    if config.widths is not None:
        return _named_groups(structure, list(config.widths))
    chosen = [
        group
        for group in structure.groups
        if matches_any(group.name, config.include) and not matches_any(group.name, config.exclude)
    ]
    available = {kind for group in chosen for kind in kinds_of(group)}
    wanted = config.scope or () if config.keep is None else [kind for kind, ratio in config.keep if ratio < 1.0]
    missing = [kind for kind in wanted if kind not in available]
    if missing or not available:
        what = f"no {' and no '.join(missing)}" if missing else "no channels"
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(structure.refused.items())[:3])
        raise StageError(
            f"the model has {what} that can be cut on its own; what can be cut here: "
            f"{', '.join(kind for kind in WIDTH_KINDS if kind in available) or 'nothing'}"
            + (f" (not cut: {reasons})" if reasons else "")
        )
    return chosen


def _named_groups(structure: Structure, names: list[str]) -> list[ChannelGroup]:
    available = {group.name: group for group in structure.groups}
    for name in names:
        if name not in available:
            why = structure.refused.get(name, "there is no such group")
            raise StageError(
                f"widths: {name} cannot be cut: {why}; what can be cut: {', '.join(available) or 'nothing'}"
            )
    return [group for group in structure.groups if group.name in names]


def _scope(groups: Sequence[ChannelGroup], config: ChannelPrune) -> list[WidthKind]:
    available = {kind for group in groups for kind in kinds_of(group)}
    scope = [kind for kind in config.scope or DEFAULT_SCOPE if kind in available]
    if not scope:
        raise StageError(
            f"the default scope ({', '.join(DEFAULT_SCOPE)}) has nothing to cut here; "
            f"choose scope among: {', '.join(sorted(available))}"
        )
    return scope


def _shares(plan: Sequence[Cut]) -> dict[WidthKind, tuple[float, float]]:
    """Returns, by kind of channel, the pair (asked, reached) of shares of the unmodified width."""
    shares: dict[WidthKind, tuple[float, float]] = {}
    for kind in dict.fromkeys(entry.kind for entry in plan):
        entries = [entry for entry in plan if entry.kind == kind]
        total = sum(entry.original for entry in entries)
        shares[kind] = (sum(entry.asked for entry in entries) / total, sum(entry.kept for entry in entries) / total)
    return shares


def _check_keep(plan: Sequence[Cut], config: ChannelPrune) -> None:
    """Raises StageError if a ratio of `keep` is missed.

    Rounding may keep more channels than asked, and an earlier stage may have left fewer. Anything else is a miss.
    """
    if config.keep is None:
        return
    for kind, (asked, _) in _shares(plan).items():
        entries = [entry for entry in plan if entry.kind == kind]
        possible = [(min(entry.asked, entry.before), entry.kept) for entry in entries]
        miss = abs(sum(kept - aim for aim, kept in possible)) / sum(entry.original for entry in entries)
        if miss > config.keep_tolerance:
            worst = max(entries, key=lambda entry: abs(entry.kept - entry.asked) / entry.original)
            raise StageError(
                f"keep.{kind} {asked:.3g} is missed by {miss:.2f}, more than keep_tolerance {config.keep_tolerance}: "
                f"{worst.group.name} would keep {worst.kept} of {worst.original} instead of {worst.asked:.1f}; "
                f"choose a ratio that fits, lower round_to ({config.round_to}) or raise keep_tolerance"
            )


def _check_macs(achieved: float | None, already_reached: bool, plan: Sequence[Cut], config: ChannelPrune) -> None:
    if (
        config.macs_ratio is None
        or achieved is None
        or already_reached
        or abs(achieved - config.macs_ratio) <= config.macs_tolerance
    ):
        return
    kinds = ", ".join(dict.fromkeys(entry.kind for entry in plan if entry.kept < entry.before)) or "nothing"
    raise StageError(
        f"macs_ratio {config.macs_ratio} was asked for and {achieved:.4f} reached by cutting {kinds}, a miss of more "
        f"than macs_tolerance {config.macs_tolerance}; lower round_to ({config.round_to}), add kinds to scope "
        f"({', '.join(config.scope or DEFAULT_SCOPE)}), or drop blocks first"
    )
