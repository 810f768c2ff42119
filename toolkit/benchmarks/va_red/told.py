"""Tells gated layers which options to take: the controls of the benchmark choose without looking at the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import evaluating
from toolkit.hooks.points import Inputs
from toolkit.measure.macs import count_macs
from toolkit.stages.va_red.options import offers
from toolkit.stages.va_red.settings import VaRed
from toolkit.stages.va_red.wrap import collect, wrap
from toolkit.stand_ins.decisions import choices_noted, controlled, gated_layers
from toolkit.tasks.batches import batches_of
from toolkit.tasks.task import Task

Options = Mapping[str, Tensor]  # for each gated layer int64 [N, 2]: the option of each of N examples


class Told(nn.Module):
    """Runs a gated model with given options; the examples come in order, in one or more calls."""

    def __init__(self, model: nn.Module, options: Options) -> None:
        super().__init__()
        self.model, self.options, self.next = model, options, 0

    def forward(self, *inputs: Tensor) -> Any:
        """Returns the outputs of the model for the next examples."""
        first, self.next = self.next, self.next + len(inputs[0])
        taken = {name: rows[first : self.next] for name, rows in self.options.items()}

        def control_of(name: str) -> Any:
            return lambda layer, stream: layer.compute_each(stream, taken[name])

        with controlled(gated_layers(self.model), control_of):
            return self.model(*inputs)


@dataclass(frozen=True)
class Pool:
    """Holds rows of options, of which each example takes one.

    options: for each gated layer int64 [M, 2].
    names: the name of each of the M rows, or nothing.
    """

    options: Options
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.options.values())))

    def at(self, rows: Tensor) -> Options:
        """Returns the options of examples that take these rows of the pool: int64 [N]."""
        return {name: options[rows] for name, options in self.options.items()}


def untrained(dense: nn.Module, task: Task) -> nn.Module:
    """Returns a copy of the dense model with dynamic layers: fitted maps, and gates that have learnt nothing."""
    model, config = copy_model(dense), VaRed()
    with evaluating(model):
        offered, _ = offers(model, task.example_inputs(1), config)
    moments = collect(model, offered, (batch.inputs for batch in batches_of(task, "calibration", 16)))
    wrap(model, offered, moments, config)
    return model


@torch.no_grad()
def decided(model: nn.Module, batches: Iterable[Inputs]) -> Pool:
    """Returns the options that the gates of a model take on the examples of the batches, in their order."""
    with evaluating(model), choices_noted(model) as noted:
        for inputs in batches:
            model(*inputs)
    return Pool({name: torch.cat(choices.decisions) for name, choices in noted.items()})


@torch.no_grad()
def costs_of(model: nn.Module, inputs: Inputs) -> tuple[int, dict[str, dict[tuple[int, int], int]]]:
    """Returns what one example costs beside the gated layers, and in each of them the cost of every option.

    inputs: one example; all examples have its shape.
    """
    with evaluating(model), choices_noted(model) as noted:
        model(*inputs)
    layers = gated_layers(model)
    gated = sum(sum(noted[name].costs(layer)) for name, layer in layers.items())
    tables = {name: layer.option_macs(noted[name].shapes[0]) for name, layer in layers.items()}
    return count_macs(model, inputs).total - gated, tables


def macs_of_rows(model: nn.Module, inputs: Inputs, pool: Pool) -> list[int]:
    """Returns the multiply-adds of one example with each row of the pool; there are no gates to pay for.

    inputs: one example; all examples have its shape.
    """
    fixed, tables = costs_of(model, inputs)
    return [
        fixed
        + sum(table[step, part] for name, table in tables.items() for step, part in [pool.options[name][row].tolist()])
        for row in range(len(pool))
    ]
