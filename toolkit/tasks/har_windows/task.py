"""Holds the tasks `har-windows`: activities in windows of the recordings of UCI HAPT.

Test users are the official ones, validation users are as in tad-hapt. Scoring, calibration and holdout are windows of
three disjoint groups of the training users, which the network was trained on. There is one task for each of three
trained baselines, of seeds 0, 1 and 2; their weights do not ship.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from toolkit.tasks.baseline import LocalBaseline
from toolkit.tasks.classifier import Classifier
from toolkit.tasks.hapt import TEST_USERS, TRAIN_USERS, VALIDATION_USERS, HaptRecording, load_recordings
from toolkit.tasks.har_windows.card import FAMILY
from toolkit.tasks.har_windows.model import SignalNet
from toolkit.tasks.har_windows.windows import ACTIVITIES, WINDOW, SensorWindows, windows_of
from toolkit.tasks.task import Batch, Split, Strata

NUM_CHANNELS = 6

USERS: Mapping[Split, tuple[int, ...]] = {
    "score": TRAIN_USERS[0::3],
    "calibration": TRAIN_USERS[1::3],
    "holdout": TRAIN_USERS[2::3],
    "validation": VALIDATION_USERS,
    "test": TEST_USERS,
}

MOST_WINDOWS: Mapping[Split, int] = {"score": 512, "calibration": 512, "holdout": 512}  # the other splits are whole

ORDER_SEED = 0


class HarWindowsTask(Classifier):
    """Is a `Task` of six activities; recordings and weights are read only when they are needed.

    Inputs are windows, float32 [B, 6, 128], each channel with mean 0 and deviation 1 over the training windows.
    """

    protected: tuple[str, ...] = ()

    def __init__(self, seed: int, load: Callable[[], tuple[HaptRecording, ...]] = load_recordings) -> None:
        """Names the baseline and the data.

        seed: the seed of the baseline.
        load: gives the recordings.
        """
        self.baseline = LocalBaseline(FAMILY, seed, "recipes/train/har_windows.yaml")
        self.name = self.baseline.task
        self._load = load
        self._splits: dict[Split, SensorWindows] = {}

    def build_model(self) -> nn.Module:
        """Returns the network with random weights."""
        return SignalNet(NUM_CHANNELS, len(ACTIVITIES))

    def load_baseline(self) -> nn.Module:
        """Returns the trained network in eval mode.

        Raises:
            UserError: the baseline is missing, or was trained for another task or seed.
        """
        return self.baseline.load_into(self.build_model())

    def example_inputs(self, batch_size: int) -> tuple[Tensor, ...]:
        """Returns noise of the inputs' scale, so that a saved model can be inspected without the data."""
        generator = torch.Generator().manual_seed(ORDER_SEED)
        return (torch.randn(batch_size, NUM_CHANNELS, WINDOW, generator=generator),)

    def num_examples(self, split: Split) -> int:
        """Returns the number of windows in a split."""
        return len(self._windows(split))

    def batches(self, split: Split, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yields the windows of a split in a fixed random order."""
        windows = self._windows(split)
        places = torch.arange(len(windows))[:limit]
        for first in range(0, len(places), batch_size):
            yield self._batch(windows.at(places[first : first + batch_size]))

    def train_batches(self, batch_size: int, seed: int, share: float = 1.0) -> Iterator[Batch]:
        """Yields shuffled epochs of the training users' windows; an incomplete last batch is left out."""
        generator = torch.Generator().manual_seed(seed)
        total = len(self._training)
        pool = torch.randperm(total, generator=generator)[: max(1, round(share * total))]
        while True:
            shuffled = pool[torch.randperm(len(pool), generator=generator)]
            for first in range(0, max(1, len(pool) - batch_size + 1), batch_size):
                yield self._batch(self._training.at(shuffled[first : first + batch_size]))

    def strata(self, split: Split) -> Strata:
        """Returns the true activity of every window of a split."""
        return Strata(ACTIVITIES, self._windows(split).labels)

    @cached_property
    def _training(self) -> SensorWindows:
        return self._of_users(TRAIN_USERS)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        signals = self._training.signals.double()
        mean, deviation = signals.mean((0, 2)), signals.std((0, 2), correction=0)
        return mean.float()[:, None], deviation.float()[:, None]

    def _windows(self, split: Split) -> SensorWindows:
        if split not in self._splits:
            windows = self._of_users(USERS[split])
            order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(ORDER_SEED))
            self._splits[split] = windows.at(order[: MOST_WINDOWS.get(split)])
        return self._splits[split]

    def _of_users(self, users: tuple[int, ...]) -> SensorWindows:
        return windows_of(recording for recording in self._load() if recording.user in users)

    def _batch(self, windows: SensorWindows) -> Batch:
        mean, deviation = self._moments
        return Batch(((windows.signals - mean) / deviation,), windows.labels)


def make_seed0() -> HarWindowsTask:
    """Returns the task with the baseline of seed 0."""
    return HarWindowsTask(0)


def make_seed1() -> HarWindowsTask:
    """Returns the task with the baseline of seed 1."""
    return HarWindowsTask(1)


def make_seed2() -> HarWindowsTask:
    """Returns the task with the baseline of seed 2."""
    return HarWindowsTask(2)
