"""Chooses one option per layer for each group of examples: what gates could do that are told the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.benchmarks.va_red.told import Pool
from toolkit.hooks.modes import evaluating
from toolkit.stages.va_red.constant import Option, cheapest, score_options
from toolkit.stand_ins.decisions import without_gates
from toolkit.tasks.groups import groups_of
from toolkit.tasks.task import AlignmentOptions, Task

SCORED: Final = "score"  # the split on which errors are measured


def oracle_pool(
    start: nn.Module,
    dense: nn.Module,
    task: Task,
    costs: Mapping[str, Mapping[Option, int]],
    most: int,
    console: Console,
) -> Pool:
    """Returns one row of options for each group of examples, whose mean cost over the groups is at most `most`.

    Options are chosen as constant ones are, from the error that each makes alone, but for each group by itself.

    start: a model with gates that have learnt nothing, and with fitted maps.
    costs: the multiply-adds of each option of each gated layer, for one example.
    most: what all gated layers may take for one example, on average.
    """
    model, groups = without_gates(start), groups_of(task, SCORED)
    names = tuple(dict.fromkeys(groups))
    errors: dict[str, dict[Option, float]] = {}
    weighed: dict[str, dict[Option, int]] = {}
    for group in names:
        rows = torch.tensor([at for at, other in enumerate(groups) if other == group])
        divergence = _Divergence(task, dense, rows)
        for layer, scores in score_options(model, divergence, costs, console).items():
            errors[f"{group}/{layer}"] = {option: score * len(rows) for option, score in scores.items()}
            weighed[f"{group}/{layer}"] = {option: cost * len(rows) for option, cost in costs[layer].items()}
    chosen = cheapest(errors, weighed, most * len(groups))
    return Pool({layer: _rows(chosen, names, layer) for layer in costs}, names)


def _rows(chosen: Mapping[str, Option], groups: Sequence[str], layer: str) -> Tensor:
    return torch.tensor([chosen[f"{group}/{layer}"] for group in groups])


class _Divergence:
    """Gives the mean distance of a model's predictions to the dense model's on some examples of the score split."""

    def __init__(self, task: Task, dense: nn.Module, rows: Tensor) -> None:
        self._task = task
        (batch,) = task.batches(SCORED, task.num_examples(SCORED))
        self._inputs = tuple(part[rows] for part in batch.inputs)
        self._targets = batch.targets[rows]
        with torch.no_grad(), evaluating(dense):
            self._teacher = dense(*self._inputs)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        with evaluating(model):
            outputs = model(*self._inputs)
        terms = self._task.alignment(outputs, self._teacher, self._targets, AlignmentOptions())
        return float(torch.stack(list(terms.values())).sum())
