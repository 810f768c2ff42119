"""Makes the figures of one layer from the statistics of its output on two sets of data."""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
from torch import Tensor, nn

from toolkit.redundancy.channels import channel_choice, damped_rebuild, linear_rebuild
from toolkit.redundancy.moments import ChannelMoments
from toolkit.redundancy.report import ChannelRedundancy, KeptShare, KeptSteps, LayerRedundancy, TimeRedundancy
from toolkit.redundancy.statistics import LayerStatistics, has_time
from toolkit.redundancy.time import repetition, time_rebuild

SHARES: Final[tuple[Literal[2, 4], ...]] = (2, 4)

ENOUGH = 4  # positions per channel below which the report says that a fit has few

PLENTY = 16  # positions per channel from which a fit needs no damping


def figures_of(
    path: str, layer: nn.Module, fitted: LayerStatistics | None, held: LayerStatistics | None
) -> LayerRedundancy | str:
    """Returns the figures of a layer, or the reason why it has none.

    fitted, held: the statistics of the data to choose and fit on, and of held-out data; None where the layer did not
        run.
    """
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
            f"fitted on fewer than {ENOUGH} positions per channel, so that R^2 may be low for want of data; use more "
            "examples or positions"
        )
    time = None
    if has_time(layer):
        time = _time(fitted, held)
        if time is None:
            is_long = fitted.pairs is not None and held.pairs is not None
            notes.append(
                "no channel varies over the series that were drawn" if is_long else "its output has a single time step"
            )
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
        if fitted.count >= PLENTY * num_channels:
            rebuild = linear_rebuild(covariance, fitted.mean, kept)
        else:
            rebuild = damped_rebuild(covariance, fitted.mean, kept, (elsewhere, held.mean))
        return rebuild.explained_elsewhere(elsewhere, held.mean)

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
