"""Makes plans that cut all widths to about the same share, as safe starts of a search. No torch here.

The optimum of the tables adds up losses of single changes, so it gathers its cuts where each one alone is cheap. Where
losses do not add up, that plan is poor, and an even plan is better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import Plan, PlanGroup, Tables, Width, cost, make_plan
from toolkit.stages.channel_prune.settings import Heads

SHARES = tuple(eighths / 8 for eighths in range(7, 0, -1))


def even_plans(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> list[Plan]:
    """Returns at most one plan within the limits for each share in `SHARES`; no plan for the depth family.

    All widths are cut to the share, and blocks are dropped in the order of the loss that each adds alone until the
    limits hold. Then widths are raised again while the limits allow it, first where that gains most for its cost.
    """
    plans = []
    for share in SHARES if family != "depth" else ():
        levels = {group.name: _level(group, share) for group in tables.groups}
        for choice in _dropping(tables, levels, family):
            if _fits(tables, limits, choice):
                if choice.levels:
                    plans.append(_filled(tables, limits, choice))
                break
    return list(dict.fromkeys(plans))


def _dropping(tables: Tables, levels: Mapping[str, int], family: PlanFamily) -> Iterator[Plan]:
    """Yields plans with ever more dropped blocks, from one block on; for the width family one plan without any."""
    if family == "width":
        yield make_plan(tables, 0, (), levels)
        return
    order = [block.name for block in sorted(tables.blocks, key=lambda block: block.loss)]
    for number in range(1, len(order)):
        yield make_plan(tables, 0, [(name, None) for name in order[:number]], levels)


def _level(group: PlanGroup, share: float) -> int:
    """Returns the index of the width nearest to the share of the full one; the wider width where two are as near."""
    full = _units(group.widths[0])
    usable = [
        index for index, width in enumerate(group.widths) if not isinstance(width, Heads) or width.head_dim is None
    ]
    return min(usable, key=lambda index: (abs(_units(group.widths[index]) / full - share), index))


def _units(width: Width) -> int:
    return width.heads if isinstance(width, Heads) else width


def _filled(tables: Tables, limits: Mapping[str, float], choice: Plan) -> Plan:
    """Returns the plan with widths raised one step at a time, first the one that gains most for its cost."""
    primary = next(iter(limits))
    groups = {group.name: group for group in tables.groups}
    costs = tables.contexts[choice.context].groups
    while True:
        steps = []
        for name, level in choice.levels.items():
            gain = groups[name].losses[level] - groups[name].losses[level - 1]
            price = costs[name][level - 1][primary] - costs[name][level][primary]
            dropped = [(block, None) for block in choice.dropped]
            raised = make_plan(tables, choice.context, dropped, {**choice.levels, name: level - 1})
            if gain > 0 and price > 0 and raised.levels and _fits(tables, limits, raised):
                steps.append((gain / price, name, raised))
        if not steps:
            return choice
        choice = max(steps, key=lambda step: step[:2])[2]


def _fits(tables: Tables, limits: Mapping[str, float], choice: Plan) -> bool:
    return all(cost(tables, choice, name) <= limit + 1e-9 for name, limit in limits.items())
