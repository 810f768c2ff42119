"""Makes the tables of a planner's sweep, which `fronts.md` and the page share."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from reports.comparison.runs import Cost
from reports.drawing.words import FAMILY_WORDS, percent
from reports.fronts.cells import AXES, Fronts, Gap
from reports.fronts.scores import (
    QUALITY_SLACK,
    WITHIN,
    Group,
    Verdict,
    areas,
    budgets,
    counted,
    groups,
    misses,
    reached,
    seeds,
    verdicts,
)
from reports.fronts.words import cost_name, spread
from toolkit.base.words import setting


@dataclass(frozen=True)
class Sheet:
    """Holds a table; `note` says how to read it, and the first `text_columns` columns are text."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    text_columns: int = 1


def sheets(fronts: Fronts) -> list[Sheet]:
    """Returns all tables in the order of the page."""
    return [_by_budget(fronts), _verdicts(fronts), _areas(fronts), _misses(fronts)]


def lists(fronts: Fronts) -> list[tuple[str, list[str]]]:
    """Returns (title, lines) of the cells that were not run and of those that are infeasible, each with its reason."""

    def reasons(gaps: Sequence[Gap]) -> list[str]:
        return [f"{gap.place.name}: {' '.join(gap.reason.split())}" for gap in gaps]

    return [("Not run", reasons(fronts.not_run)), ("Infeasible", reasons(fronts.infeasible))]


def _by_budget(fronts: Fronts) -> Sheet:
    timed = [cost for cost in fronts.costs if cost.timing]
    head = ["family", "budget", "seeds", "infeasible", *map(cost_name, fronts.costs), "test", "test - dense"]
    head += [f"predicted {cost_name(cost)}" for cost in timed]
    note = (
        f"Mean (least to most over seeds). Costs are shares of the dense model's; MACs are multiply-adds; test is the "
        f"{fronts.metric}, and its difference is to the dense model of the same seed."
    )
    rows = tuple(_row(group, fronts.costs, timed) for group in groups(fronts))
    return Sheet("Results per family and budget", tuple(head), rows, note, 2)


def _row(group: Group, costs: Sequence[Cost], timed: Sequence[Cost]) -> tuple[str, ...]:
    cells, asked = group.cells, len(group.cells) + len(group.not_run) + len(group.infeasible)
    done = str(asked) if not group.not_run else f"{asked - len(group.not_run)} of {asked}"
    measured = [spread([cell.costs[cost.key] for cell in cells]) for cost in costs]
    quality = [spread([cell.quality["test"] for cell in cells]), spread([cell.change for cell in cells], sign="+")]
    predicted = [
        spread([cell.predicted[cost.key] for cell in cells if cost.key in cell.predicted], 3) for cost in timed
    ]
    family = FAMILY_WORDS[group.family] if group.family else "control"
    infeasible = str(len(group.infeasible)) if group.family else "–"
    return (family, group.label, done, infeasible, *measured, *quality, *predicted)


def _verdicts(fronts: Fronts) -> Sheet:
    head = ["budget", "feasible families", "combined >= better single axis", "seeds compared"]
    head += [
        "combined - better single axis",
        "the same within seeds",
        *(f"test, {FAMILY_WORDS[axis]}" for axis in AXES),
    ]
    note = (
        f"Test {fronts.metric}. The answer is of means over the seeds, combined's and the better single axis'. Within "
        "seeds the better axis is chosen anew in each, which favours the single axes. An infeasible cell is never a "
        "win: a seed is compared only where combined and a single axis are both measured; at any other the answer says "
        "why."
    )
    rows = tuple(_verdict_row(verdict, len(seeds(fronts))) for verdict in verdicts(fronts))
    return Sheet("Combined against the better single axis, per budget", tuple(head), rows, note, 3)


def _verdict_row(verdict: Verdict, num_seeds: int) -> tuple[str, ...]:
    feasible = [_feasible(verdict.groups[axis]) for axis in AXES if verdict.groups[axis].cells]
    wins = sum(difference >= 0.0 for difference in verdict.differences)
    answer = verdict.answer
    if verdict.differences:
        answer += f" ({wins} of {len(verdict.differences)} seeds)"
    quality = [spread([cell.quality["test"] for cell in verdict.groups[axis].cells]) for axis in AXES]
    compared, within = f"{len(verdict.differences)} of {num_seeds}", spread(verdict.differences, sign="+")
    gain = "–" if verdict.difference is None else f"{verdict.difference:+.3f}"
    return (verdict.budget, ", ".join(feasible) or "none", answer, compared, gain, within, *quality)


def _feasible(group: Group) -> str:
    """Returns the family in words, with the number of its feasible seeds if some are infeasible."""
    assert group.family is not None, "verdicts are of families"
    settled = len(group.cells) + len(group.infeasible)
    share = f" ({len(group.cells)} of {settled} seeds)" if group.infeasible else ""
    return f"{FAMILY_WORDS[group.family]}{share}"


def _areas(fronts: Fronts) -> Sheet:
    """Returns hypervolumes over the budgets that all families reach, and over all budgets if these are more."""
    head = ("cost", "budgets", *(FAMILY_WORDS[axis] for axis in AXES), "combined / better single axis", "seeds")
    common, every = reached(fronts), counted(fronts)
    over = {"all": every} if common == every else {"reached by all families": common, "all": every}
    rows = tuple(
        (
            cost_name(area.cost),
            words,
            *(spread(area.of_family[axis], 4) for axis in AXES),
            spread(area.ratios),
            str(len(area.of_family["combined"])),
        )
        for words, used in over.items()
        for area in areas(fronts, used)
    )
    note = (
        f"Hypervolume: mean (least to most over seeds) of the area that a family's plans dominate, up to a ratio of 1 "
        f"and the dense {fronts.metric} of the same seed - {QUALITY_SLACK:.2f}; more is better. {_coverage(fronts)}"
    )
    return Sheet("Hypervolume of each family's front", head, rows, note, 2)


def _coverage(fronts: Fronts) -> str:
    """Returns a sentence on the budgets that the areas leave out because a family was not run at them."""
    used = counted(fronts)
    left_out = {seed: [budget for budget in budgets(fronts) if budget not in used[seed]] for seed in seeds(fronts)}
    missing = [f"seed {seed}: {', '.join(names)}" for seed, names in left_out.items() if names]
    if not missing:
        return "Among all budgets, infeasible plans count with no area."
    return f"Left out, as not every family has been run there: {'; '.join(missing)}."


def _misses(fronts: Fronts) -> Sheet:
    head = (
        "latency",
        "largest miss",
        "plans",
        f"within {setting(WITHIN)}",
        "predicted / measured - 1",
        "without a pair",
    )
    rows = []
    for entry in misses(fronts):
        values = [miss for _, miss in entry.misses]
        worst = f"{entry.largest[1]:+.1%} ({entry.largest[0].place.name})" if values else "–"
        within = f"{round(entry.share_within * len(values))} ({percent(entry.share_within)})" if values else "–"
        middle = f"{statistics.mean(values):+.1%} ({min(values):+.1%} to {max(values):+.1%})" if values else "–"
        rows.append((cost_name(entry.cost), worst, str(len(values)), within, middle, str(entry.unmatched)))
    note = (
        "Latency as predicted by the planner against the measured one, both as shares of the dense model's. Without a "
        "pair: plans with no prediction for this batch size, device and number of threads."
    )
    return Sheet("Predicted against measured latency", head, tuple(rows), note, 2)
