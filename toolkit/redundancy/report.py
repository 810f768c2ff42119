"""Holds the redundancy report of a model as data: what its convolutions repeat. Nothing here imports torch.

All figures are of held-out data. What is chosen or fitted, such as the partner of a channel, the channels that are kept
and the maps that rebuild the others, is chosen and fitted on other data; only how strongly a fit to few data is damped
is chosen on the held-out data, too. R^2 is 1 - squared error / variance, both
summed over all that is rebuilt: 1 is exact, 0 is as good as the mean, and below 0 is worse than the mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from toolkit.base.errors import RecordError
from toolkit.base.settings import Data, Positive

REDUNDANCY_FILE: Final = "redundancy.json"

EXAMPLES: Final = 256  # of each of both splits

POSITIONS: Final = 64  # of each example's output in each layer: neighbours are nearly alike

Correlation = Annotated[float, Field(ge=-1.0, le=1.0)]
RSquared = Annotated[float, Field(le=1.0)]
Rmse = Annotated[float, Field(ge=0.0)]


class KeptShare(Data):
    """Says what a linear map of a share of the channels explains of the other channels.

    share: 2 for a half of the channels, 4 for a quarter.
    kept: the number of channels, rounded up.
    first: R^2 from the first channels, which VA-RED^2 keeps.
    chosen: R^2 from the channels that explain all others best, chosen one after the other by least squares.
    """

    share: Literal[2, 4]
    kept: Positive
    first: RSquared
    chosen: RSquared


class ChannelRedundancy(Data):
    """Says how alike the channels of an output are.

    correlation: Pearson's correlation of a channel and its best partner, the mean over channels; the partner's sign is
        the one of the data on which it was chosen. None where only one channel varies.
    relative_rmse: sqrt(sum over channels of E[(channel - nearest channel)^2] / sum of variances); None as above.
    """

    correlation: Correlation | None
    relative_rmse: Rmse | None
    explained: tuple[KeptShare, ...]


class KeptSteps(Data):
    """Says what every `rate`-th time step explains of the steps between.

    rebuilt: R^2 of the steps rebuilt from the computed step before and the one behind, by two weights and a
        bias for each offset and channel, fitted by least squares.
    repeated: R^2 of repeating the computed step before.
    """

    rate: Literal[2, 4]
    rebuilt: RSquared
    repeated: RSquared


class TimeRedundancy(Data):
    """Says how alike the time steps of an output are.

    least_steps, most_steps: the shortest and the longest output that was seen.
    correlation: Pearson's correlation of a step and the next one, the mean over channels.
    relative_rmse: sqrt(sum over channels of E[(next - step)^2] / sum of variances).
    """

    least_steps: Positive
    most_steps: Positive
    correlation: Correlation
    relative_rmse: Rmse
    explained: tuple[KeptSteps, ...]


class LayerRedundancy(Data):
    """Holds the figures of one convolution.

    kind: its class, such as `Conv1d`.
    num_channels: the number of its output channels.
    num_constant: how many of them have one and the same value everywhere.
    fitted_on, measured_on: the number of positions, over all examples.
    channels, time: None where `notes` say why.
    """

    name: str
    kind: str
    num_channels: Positive
    num_constant: int
    fitted_on: int
    measured_on: int
    channels: ChannelRedundancy | None
    time: TimeRedundancy | None
    notes: tuple[str, ...] = ()


class RedundancyReport(Data):
    """Holds the figures of all convolutions of a model.

    examples: the most examples that were used of each of both splits.
    positions: the most positions that were used of each example in each layer.
    seed: fixes which positions these are.
    not_measured: the reason for each convolution without figures.
    """

    schema_version: Literal[1] = 1
    model: str
    task: str
    examples: Positive
    positions: Positive
    seed: int
    layers: tuple[LayerRedundancy, ...]
    not_measured: dict[str, str]

    @property
    def has_time(self) -> bool:
        """Returns whether a convolution has figures along time."""
        return any(layer.time is not None for layer in self.layers)


def load_redundancy(folder: Path) -> RedundancyReport | None:
    """Returns the report in the folder of a run; None where there is none.

    Raises:
        RecordError: the file cannot be read, or is damaged.
    """
    path = folder / REDUNDANCY_FILE
    if not path.exists():
        return None
    try:
        return RedundancyReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise RecordError(f"{path}: damaged or no redundancy report ({reason}); remove it or make it anew") from error
