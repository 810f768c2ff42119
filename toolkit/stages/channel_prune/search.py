"""Searches the keep ratio, and widths of single groups, that reach a share of the unmodified multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from toolkit.channels.cut import cut
from toolkit.channels.groups import ChannelGroup
from toolkit.hooks.copies import copy_model
from toolkit.stages.channel_prune.last_steps import WidthPlan, loss, meet
from toolkit.stages.channel_prune.settings import ChannelPrune, Keep, WidthKind
from toolkit.stages.channel_prune.widths import Scores, choose, even_scores, plan_cuts, possible_widths
from toolkit.stages.context import StageContext

MOST_TRIALS = 16

CLOSE_ENOUGH = 0.1  # share of the tolerance at which the search ends


@dataclass(frozen=True)
class _Side:
    """Holds a plan on one side of the target.

    share: keep ratio of the plan.
    miss: MACs ratio of the plan minus the target.
    plan: the plan, or None at an end of the range.
    """

    share: float
    miss: float
    plan: WidthPlan | None = None


def search_ratio(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    kinds: Sequence[WidthKind],
    config: ChannelPrune,
    context: StageContext,
    scores: Scores,
) -> WidthPlan:
    """Returns the plan whose multiply-adds are nearest to `macs_ratio`; widths are tried on copies of the model.

    Bisection and linear interpolation alternate, because multiply-adds fall with the square of a width in some layers.
    If the target lies in a jump, where all groups give up a whole head at once, only the groups that lose least do so.
    If this misses the target too, widths of single groups are chosen; see `last_steps`.
    """
    assert config.macs_ratio is not None
    search = _Search(model, context, config.macs_ratio)
    low, high = _Side(0.0, -config.macs_ratio), _Side(1.0, context.macs_ratio(model) - config.macs_ratio)
    best: _Side | None = None
    for trial in range(MOST_TRIALS):
        share = _guess(low, high) if trial % 2 == 0 else (low.share + high.share) / 2
        plan = plan_cuts(groups, context.dense, Keep(**dict.fromkeys(kinds, share)), config, scores)
        side = _Side(share, search.miss(plan), plan)
        if best is None or abs(side.miss) < abs(best.miss):
            best = side
        if abs(best.miss) <= CLOSE_ENOUGH * config.macs_tolerance or high.share - low.share < 1e-4:
            break
        low, high = (low, side) if side.miss > 0 else (side, high)
    assert best is not None and best.plan is not None
    plan = best.plan
    if abs(best.miss) > config.macs_tolerance and low.plan is not None and high.plan is not None:
        plan = min(
            plan, _between(search, low.plan, high.plan, scores), key=lambda candidate: abs(search.miss(candidate))
        )
    if abs(search.miss(plan)) > config.macs_tolerance:
        widths = [possible_widths(entry, config) if entry.kind in kinds else (entry.kept,) for entry in plan]
        plan = meet(search.miss, plan, widths, scores, config.macs_tolerance)
    return plan


@dataclass
class _Search:
    """Counts multiply-adds of plans, each plan once."""

    model: nn.Module
    context: StageContext
    target: float

    def __post_init__(self) -> None:
        self.seen: dict[tuple[int, ...], float] = {}

    def miss(self, plan: WidthPlan) -> float:
        """Returns the MACs ratio of a plan minus the target."""
        widths = tuple(entry.kept for entry in plan)
        if widths not in self.seen:
            trial = copy_model(self.model)
            cut(trial, choose(plan, even_scores([entry.group for entry in plan])))
            self.seen[widths] = self.context.macs_ratio(trial) - self.target
        return self.seen[widths]


def _guess(low: _Side, high: _Side) -> float:
    """Returns where a straight line between the two sides is 0, but not too near to either."""
    part = low.miss / (low.miss - high.miss) if low.miss < high.miss else 0.5
    return low.share + (high.share - low.share) * min(max(part, 0.05), 0.95)


def _between(search: _Search, narrow: WidthPlan, wide: WidthPlan, scores: Scores) -> WidthPlan:
    """Returns the plan nearest to the target that takes some groups from `narrow` and the others from `wide`."""
    order = sorted(
        range(len(wide)),
        key=lambda place: loss(wide[place], narrow[place].kept, scores) - loss(wide[place], wide[place].kept, scores),
    )
    first, last = 0, len(order)  # numbers of narrow groups with too many and with too few multiply-adds
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if search.miss(_mixed(narrow, wide, order[:middle])) > 0 else (first, middle)
    return min(
        (_mixed(narrow, wide, order[:number]) for number in (first, last)),
        key=lambda candidate: abs(search.miss(candidate)),
    )


def _mixed(narrow: WidthPlan, wide: WidthPlan, places: Sequence[int]) -> WidthPlan:
    return [narrow[place] if place in places else entry for place, entry in enumerate(wide)]
