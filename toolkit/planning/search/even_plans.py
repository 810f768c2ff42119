"""Plans that cut all widths alike: where losses do not add up, they are the safe ones to begin a search with.

The optimum on paper believes the loss of every change as it is alone, and so it heaps cuts where each looks cheap.
No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.planning.search.solver import PlanFamily
from toolkit.planning.tables import Plan, PlanGroup, Tables, Width, cost, make_plan
from toolkit.stages.channel_prune.settings import Heads

SHARES = tuple(eighths / 8 for eighths in range(7, 0, -1))


def even_plans(tables: Tables, limits: Mapping[str, float], family: PlanFamily) -> list[Plan]:
    """Returns plans within the limits, one for each share of the widths that goes with some number of dropped blocks.

    Blocks go in the order of what each adds alone, until the limits hold; what is left of the limits is given back to
    the widths that gain most for it. The depth family has none, as it cuts no width.
    """
    found = []
    for share in SHARES if family != "depth" else ():
        levels = {group.name: _level(group, share) for group in tables.groups}
        for choice in _dropping(tables, levels, family):
            if _fits(tables, limits, choice):
                if choice.levels:
                    found.append(_filled(tables, limits, choice))
                break
    return list(dict.fromkeys(found))


def _dropping(tables: Tables, levels: Mapping[str, int], family: PlanFamily) -> Iterator[Plan]:
    """Ever more blocks gone; none for one axis, at least one for both."""
    if family == "width":
        yield make_plan(tables, 0, (), levels)
        return
    order = [block.name for block in sorted(tables.blocks, key=lambda block: block.loss)]
    for number in range(1, len(order)):
        yield make_plan(tables, 0, [(name, None) for name in order[:number]], levels)


def _level(group: PlanGroup, share: float) -> int:
    """The place of the width that is nearest to the share of the full one; the wider of two."""
    full = _units(group.widths[0])
    own = [place for place, width in enumerate(group.widths) if not isinstance(width, Heads) or width.head_dim is None]
    return min(own, key=lambda place: (abs(_units(group.widths[place]) / full - share), place))


def _units(width: Width) -> int:
    return width.heads if isinstance(width, Heads) else width


def _filled(tables: Tables, limits: Mapping[str, float], choice: Plan) -> Plan:
    """With widths given back one step at a time, the one first that gains most for what it costs."""
    first = next(iter(limits))
    groups = {group.name: group for group in tables.groups}
    costs = tables.contexts[choice.context].groups
    while True:
        steps = []
        for name, level in choice.levels.items():
            gain = groups[name].losses[level] - groups[name].losses[level - 1]
            price = costs[name][level - 1][first] - costs[name][level][first]
            gone = [(block, None) for block in choice.dropped]
            raised = make_plan(tables, choice.context, gone, {**choice.levels, name: level - 1})
            if gain > 0 and price > 0 and raised.levels and _fits(tables, limits, raised):
                steps.append((gain / price, name, raised))
        if not steps:
            return choice
        choice = max(steps, key=lambda step: step[:2])[2]


def _fits(tables: Tables, limits: Mapping[str, float], choice: Plan) -> bool:
    return all(cost(tables, choice, name) <= limit + 1e-9 for name, limit in limits.items())
