"""The one keep ratio that brings a model to a share of the unmodified multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from toolkit.channels.cut import cut
from toolkit.channels.groups import ChannelGroup
from toolkit.stage_configs import ChannelPrune, Keep, WidthKind
from toolkit.stages.context import StageContext
from toolkit.stages.width_plan import Cut, Scores, choose, even_scores, plan_cuts

MOST_TRIALS = 16
CLOSE_ENOUGH = 0.1  # of the tolerance


def search_ratio(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    kinds: Sequence[WidthKind],
    config: ChannelPrune,
    context: StageContext,
    scores: Scores,
) -> list[Cut]:
    """The plan whose MACs are nearest to `macs_ratio`; widths are tried out on copies of the model.

    Halving and straight-line guesses in turns, since MACs fall with the square of a width in some layers.
    """
    assert config.macs_ratio is not None
    target = config.macs_ratio
    low, high = (0.0, 0.0 - target), (1.0, context.macs_ratio(model) - target)  # (share, miss); nothing left: no MACs
    best: tuple[float, list[Cut]] | None = None
    seen: dict[tuple[int, ...], float] = {}
    for trial in range(MOST_TRIALS):
        share = _guess(low, high) if trial % 2 == 0 else (low[0] + high[0]) / 2
        plan = plan_cuts(groups, context.dense, Keep(**dict.fromkeys(kinds, share)), config, scores)
        widths = tuple(entry.kept for entry in plan)
        if widths not in seen:
            seen[widths] = _macs_ratio_of(model, plan, context) - target
        miss = seen[widths]
        if best is None or abs(miss) < abs(best[0]):
            best = (miss, plan)
        if abs(best[0]) <= CLOSE_ENOUGH * config.macs_tolerance or high[0] - low[0] < 1e-4:
            break
        low, high = (low, (share, miss)) if miss > 0 else ((share, miss), high)
    assert best is not None
    return best[1]


def _guess(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where a straight line between the two is 0, not too near to either."""
    (left, below), (right, above) = low, high
    part = below / (below - above) if below < above else 0.5
    return left + (right - left) * min(max(part, 0.05), 0.95)


def _macs_ratio_of(model: nn.Module, plan: Sequence[Cut], context: StageContext) -> float:
    trial = copy.deepcopy(model)
    cut(trial, choose(plan, even_scores([entry.group for entry in plan])))
    return context.macs_ratio(trial)
