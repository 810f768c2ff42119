"""Counts what a model with gates takes for each input, gates and cheap maps included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from toolkit.base.errors import StageError
from toolkit.hooks.modes import evaluating
from toolkit.measure.counted import InputMacs
from toolkit.measure.macs import count_macs
from toolkit.stand_ins.decisions import choices_noted, gated_layers


@torch.no_grad()
def macs_of_inputs(
    model: nn.Module, batches: Iterable[tuple[Tensor, ...]], smallest_batch: int = 1, groups: Sequence[str] = ()
) -> InputMacs:
    """Returns the multiply-adds for each example of the batches.

    What does not depend on decisions is counted once for each shape of the inputs, on a few examples; what the gated
    layers take follows from their decisions on each example.

    smallest_batch: the smallest number of examples that the model takes per call.
    groups: the name of each example's group, in their order, or nothing.

    Raises:
        StageError: there are not as many groups as examples.
    """
    layers = gated_layers(model)
    fixed: dict[tuple[tuple[int, ...], ...], int] = {}
    counts: list[int] = []
    for inputs in batches:
        key = tuple(tuple(part.shape[1:]) for part in inputs)
        if key not in fixed:
            few = tuple(part[:smallest_batch] for part in inputs)
            together = count_macs(model, few).total - sum(_gated(model, few))
            fixed[key] = together // len(few[0])
        counts += [fixed[key] + spent for spent in _gated(model, inputs)]
    assert layers, "a model without gates takes the same for every input"
    if groups and len(groups) != len(counts):
        raise StageError(
            f"`strata` of the task tells the groups of {len(groups)} examples, but the split has {len(counts)}"
        )
    return InputMacs.of(counts, groups)


def _gated(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[int]:
    """Returns what the gated layers take for each example of a batch."""
    with evaluating(model), choices_noted(model) as noted:
        model(*inputs)
    layers = gated_layers(model)
    return [sum(costs) for costs in zip(*(noted[name].costs(layer) for name, layer in layers.items()), strict=True)]
