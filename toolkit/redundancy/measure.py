"""Measures how far the outputs of a model's convolutions repeat themselves over channels and over time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, Literal

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError
from toolkit.channels.layers import is_conv, num_outputs
from toolkit.hooks.modes import device_of
from toolkit.hooks.points import Inputs
from toolkit.hooks.trial import try_model
from toolkit.redundancy.channels import channel_choice, linear_rebuild
from toolkit.redundancy.moments import ChannelMoments
from toolkit.redundancy.report import (
    ChannelRedundancy,
    KeptShare,
    KeptSteps,
    LayerRedundancy,
    RedundancyReport,
    TimeRedundancy,
)
from toolkit.redundancy.statistics import Collector, LayerStatistics, has_time, in_groups
from toolkit.redundancy.time import repetition, time_rebuild
from toolkit.tasks.batches import batches_of
from toolkit.tasks.task import Split, Task

EXAMPLES: Final = 256  # of each of both splits

POSITIONS: Final = 64  # of each example's output in each layer: neighbours are nearly alike

BATCH_SIZE = 16

MEMORY_BYTES = 2**28  # for covariances; layers with more channels are measured in several passes over the data

SHARES: Final[tuple[Literal[2, 4], ...]] = (2, 4)

ENOUGH = 4  # positions per channel below which a fit may be good by chance


def redundancy_of(
    task: Task,
    model: nn.Module,
    *,
    name: str,
    examples: int = EXAMPLES,
    positions: int = POSITIONS,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> RedundancyReport:
    """Returns what the convolutions of a model repeat, in eval mode; the model is left as it was.

    Partners, kept channels and maps are chosen on the split `calibration` of the task, and all figures are of its split
    `holdout`. The figures are those of a convolution's own output, in front of norms and activations.

    name: the name of the model in the report.
    examples: the most examples that are used of each split.
    positions: the most positions that are used of each example's output in each call of a layer.
    seed: fixes the positions.
    memory_bytes: the size of the covariances that are held at one time; the data are gone through as often as it takes.

    Raises:
        UserError: the model has no convolution or does not run, or the task gives no data.
    """
    layers = {path: num_outputs(module) for path, module in model.named_modules() if is_conv(module)}
    if not layers:
        raise UserError(f"{name} has no convolution (nn.Conv1d, nn.Conv2d, nn.Conv3d), so there is nothing to measure")
    device = device_of(model)

    def inputs(split: Split) -> Iterator[Inputs]:
        batches = batches_of(task, split, BATCH_SIZE, limit=examples, needed_by="--redundancy")
        return (tuple(part.to(device) for part in batch.inputs) for batch in batches)

    try_model(model, next(inputs("calibration")), name)

    def collected(group: list[str], split: Split) -> dict[str, LayerStatistics]:
        return Collector(model, group, positions, seed).run(inputs(split))

    found: dict[str, LayerRedundancy | str] = {}
    for group in in_groups(layers, memory_bytes):
        fitted, held = collected(group, "calibration"), collected(group, "holdout")
        found |= {path: _layer(path, model.get_submodule(path), fitted.get(path), held.get(path)) for path in group}
    return RedundancyReport(
        model=name,
        task=task.name,
        examples=examples,
        positions=positions,
        seed=seed,
        layers=tuple(layer for layer in found.values() if not isinstance(layer, str)),
        not_measured={path: reason for path, reason in found.items() if isinstance(reason, str)},
    )


def _layer(
    path: str, layer: nn.Module, fitted: LayerStatistics | None, held: LayerStatistics | None
) -> LayerRedundancy | str:
    """Returns the figures of a layer from the statistics of both splits, or the reason why it has none."""
    if fitted is None or held is None:
        return "it never runs on the data" if fitted is held else "it runs on one of both splits alone"
    if fitted.fault or held.fault:
        return fitted.fault or held.fault
    if len(fitted.channels.mean) != len(held.channels.mean):
        return "its number of channels changes from call to call"
    varying = fitted.channels.varying() & held.channels.varying()
    if not bool(varying.any()):
        return "its output is constant: no channel varies over positions and examples"
    num_channels = len(fitted.channels.mean)
    notes = []
    if num_channels == 1:
        notes.append("it has one output channel, which has no other to be compared with")
    elif fitted.channels.count < ENOUGH * num_channels:
        notes.append(
            f"its {num_channels} channels were fitted on {fitted.channels.count} positions only, so R^2 may be low for "
            "want of data; use more examples or positions"
        )
    time = None
    if has_time(layer):
        time = _time(fitted, held)
        if time is None:
            is_long = fitted.pairs is not None and held.pairs is not None
            notes.append("its output is constant over time" if is_long else "its output has a single time step")
    return LayerRedundancy(
        name=path,
        kind=type(layer).__name__,
        num_channels=num_channels,
        num_constant=int((~varying).sum()),
        fitted_on=fitted.channels.count,
        measured_on=held.channels.count,
        channels=_channels(fitted.channels, held.channels) if num_channels > 1 else None,
        time=time,
        notes=tuple(notes),
    )


def _channels(fitted: ChannelMoments, held: ChannelMoments) -> ChannelRedundancy:
    covariance, elsewhere = fitted.covariance, held.covariance
    num_channels = len(covariance)
    numbers = {share: math.ceil(num_channels / share) for share in SHARES}
    chosen = channel_choice(covariance, max(numbers.values()))

    def explained(kept: tuple[int, ...]) -> float:
        return linear_rebuild(covariance, fitted.mean, kept).explained_elsewhere(elsewhere, held.mean)

    correlation, relative_rmse = _partners(fitted, held)
    return ChannelRedundancy(
        correlation=correlation,
        relative_rmse=relative_rmse,
        explained=tuple(
            KeptShare(share=share, kept=kept, first=explained(tuple(range(kept))), chosen=explained(chosen[:kept]))
            for share, kept in numbers.items()
        ),
    )


def _partners(fitted: ChannelMoments, held: ChannelMoments) -> tuple[float | None, float | None]:
    """Returns correlation and relative RMSE of each channel and its best partner; see `ChannelRedundancy`."""
    varying = torch.nonzero(fitted.varying() & held.varying()).flatten()
    if len(varying) < 2:
        return None, None
    (here, apart), (there, apart_there) = (_pairwise(moments, varying) for moments in (fitted, held))
    rows = torch.arange(len(varying), device=varying.device)
    partner = here.abs().fill_diagonal_(-1.0).argmax(1)
    nearest = apart.fill_diagonal_(math.inf).argmin(1)
    correlation = (there[rows, partner] * here[rows, partner].sign()).mean().clamp(-1.0, 1.0)
    variance = held.covariance.diagonal()[varying].sum()
    return float(correlation), float((apart_there[rows, nearest].clamp(min=0.0).sum() / variance).sqrt())


def _pairwise(moments: ChannelMoments, among: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the correlations of channels, and the means of their squared differences, both [among, among]."""
    covariance, mean = moments.covariance[among][:, among], moments.mean[among]
    variance = covariance.diagonal()
    spread = variance.sqrt()
    apart = variance + variance[:, None] - 2 * covariance + (mean - mean[:, None]).square()
    return covariance / (spread * spread[:, None]), apart


def _time(fitted: LayerStatistics, held: LayerStatistics) -> TimeRedundancy | None:
    if fitted.pairs is None or held.pairs is None or held.steps is None:
        return None
    correlation, relative_rmse = held.pairs.correlation(), held.pairs.relative_rmse()
    if correlation is None or relative_rmse is None or fitted.pairs.correlation() is None:
        return None
    return TimeRedundancy(
        least_steps=held.steps[0],
        most_steps=held.steps[1],
        correlation=correlation,
        relative_rmse=relative_rmse,
        explained=tuple(
            KeptSteps(
                rate=rate,
                rebuilt=time_rebuild(moments).explained_elsewhere(held.by_rate[rate]),
                repeated=repetition(held.by_rate[rate]).explained,
            )
            for rate, moments in fitted.by_rate.items()
        ),
    )
