"""Holds the rows that no recipe can state: choices that do not come from gates which see the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.console import Console
from toolkit.benchmarks.va_red.oracle import oracle_pool
from toolkit.benchmarks.va_red.told import Pool, Told, costs_of, decided, macs_of_rows
from toolkit.hooks.copies import copy_model
from toolkit.measure.counted import InputMacs
from toolkit.measure.results import Quality
from toolkit.stages.recover.apply import recovery_loss
from toolkit.stages.recover.settings import Recover
from toolkit.stand_ins.decisions import gated_layers
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.groups import groups_of
from toolkit.tasks.task import Batch, Split, Task
from toolkit.training.fit import FitConfig, Objective, fit

SPLITS: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class Chosen:
    """Holds what a model does with choices of a control: quality on both splits, and multiply-adds on validation."""

    quality: tuple[Quality, ...]
    of_inputs: InputMacs


@dataclass(frozen=True)
class Setting:
    """Holds what every control is given.

    start: the dense model with dynamic layers, fitted maps and gates that have learnt nothing.
    settings: the training of every row of the table.
    policy: the model with trained gates; None for the oracle by a rule, which needs no policy.
    most_macs: the multiply-adds that the policy takes on average.
    true_groups: returns the names of the groups of examples from their targets, for the oracle.
    rule: the option of every layer for the examples of a group, by its name; others are computed in full.
    """

    task: Task
    dense: nn.Module
    start: nn.Module
    settings: Recover
    seed: int
    console: Console
    policy: nn.Module | None = None
    most_macs: int = 0
    true_groups: Callable[[Any], list[str]] | None = None
    rule: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def choices_of_others(setting: Setting) -> Chosen:
    """Gives each example the choices that the policy's gates make for another one; the weights are the policy's."""
    policy = setting.policy
    assert policy is not None

    def permuted(split: Split) -> tuple[Pool, Tensor]:
        pool = decided(policy, (batch.inputs for batch in setting.task.batches(split, 64)))
        return pool, torch.randperm(len(pool), generator=torch.Generator().manual_seed(setting.seed))

    quality = []
    for split in SPLITS:
        pool, rows = permuted(split)
        quality.append(evaluate(setting.task, Told(policy, pool.at(rows)), split))
    return Chosen(tuple(quality), _spread(setting, policy, *permuted("validation")))


def random_choices(setting: Setting) -> Chosen:
    """Trains from the start with choices that are drawn from those of the policy, whatever the input."""
    assert setting.policy is not None
    pool = decided(setting.policy, (batch.inputs for batch in setting.task.batches("score", 64)))

    def drawn(count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(len(pool), (count,), generator=generator)

    of_batches = torch.Generator().manual_seed(setting.seed)
    model = _trained(setting, pool, lambda batch: drawn(len(batch.inputs[0]), of_batches))

    def rows_of(split: Split) -> Tensor:
        return drawn(setting.task.num_examples(split), torch.Generator().manual_seed(setting.seed))

    return _chosen(setting, model, pool, rows_of)


def oracle_choices(setting: Setting) -> Chosen:
    """Trains from the start with choices for each true group, such as each motion, which the policy has to find out."""
    (example,) = setting.task.batches("score", 1, limit=1)
    fixed, costs = costs_of(setting.start, example.inputs)
    most = setting.most_macs - fixed
    pool = oracle_pool(setting.start, setting.dense, setting.task, costs, most, setting.console)
    return _of_true_groups(setting, pool)


def choices_by_rule(setting: Setting) -> Chosen:
    """Trains from the start with the choices of the rule, which needs to know the true group of each example."""
    names = tuple(dict.fromkeys(groups_of(setting.task, "score")))
    options = torch.tensor([setting.rule.get(name, (0, 0)) for name in names])
    return _of_true_groups(setting, Pool(dict.fromkeys(gated_layers(setting.start), options), names))


def _of_true_groups(setting: Setting, pool: Pool) -> Chosen:
    """Trains with the row of the pool that bears the name of each example's true group."""
    true_groups = setting.true_groups
    assert true_groups is not None

    def rows_of(split: Split) -> Tensor:
        return torch.tensor([pool.names.index(group) for group in groups_of(setting.task, split)])

    def rows_of_batch(batch: Batch) -> Tensor:
        return torch.tensor([pool.names.index(group) for group in true_groups(batch.targets)])

    return _chosen(setting, _trained(setting, pool, rows_of_batch), pool, rows_of)


def _trained(setting: Setting, pool: Pool, rows_of: Callable[[Batch], Tensor]) -> nn.Module:
    """Returns the start after the training that all rows share, with the rows of the pool that each batch takes."""
    of_model = recovery_loss(setting.task, setting.settings, setting.dense)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return of_model(Told(model, pool.at(rows_of(batch))), batch)

    def validate(_: nn.Module) -> Quality:
        return Quality(metric=setting.task.metric, split="validation", value=0.0, num_examples=1)  # nothing is chosen

    model = copy_model(setting.start).requires_grad_(True)
    batches = setting.task.train_batches(setting.settings.batch_size, setting.seed)
    torch.manual_seed(setting.seed)
    fit(
        model,
        Objective(batches, loss, validate),
        FitConfig.of(setting.settings),
        judge_start=True,
        console=setting.console,
        title="control",
    )
    return model


def _chosen(setting: Setting, model: nn.Module, pool: Pool, rows_of: Callable[[Split], Tensor]) -> Chosen:
    """Returns quality and multiply-adds where the examples of a split take the rows `rows_of(split)` of the pool."""
    quality = [evaluate(setting.task, Told(model, pool.at(rows_of(split))), split) for split in SPLITS]
    return Chosen(tuple(quality), _spread(setting, model, pool, rows_of("validation")))


def _spread(setting: Setting, model: nn.Module, pool: Pool, rows: Tensor) -> InputMacs:
    (example,) = setting.task.batches("validation", 1, limit=1)
    macs = macs_of_rows(model, example.inputs, pool)
    return InputMacs.of([macs[row] for row in rows.tolist()], groups_of(setting.task, "validation"))
