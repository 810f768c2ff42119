"""Holds the tasks `tad-hapt`: temporal action detection on the real, untrimmed recordings of UCI HAPT.

There is one task for each of three trained baselines, of seeds 0, 1 and 2; their weights do not ship.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from toolkit.tasks.baseline import LocalBaseline
from toolkit.tasks.hapt import (
    CLASSES,
    FIRST_TRANSITION,
    SAMPLE_RATE_HZ,
    TEST_USERS,
    TRAIN_USERS,
    VALIDATION_USERS,
    HaptRecording,
    load_recordings,
)
from toolkit.tasks.tad.augment import Augment, augmented, resampled
from toolkit.tasks.tad.detection import DetectionTask
from toolkit.tasks.tad.model import DetectorConfig
from toolkit.tasks.tad.streams import Stream
from toolkit.tasks.task import Split

# The longest segment of a training user lasts 40.6 s. Its outermost positive token lies 0.75 of that, 76 tokens of
# 0.4 s, from the farther boundary; 64 tokens would be enough for all but 3 of the 690 segments.
CONFIG = DetectorConfig(num_channels=6, num_classes=len(CLASSES), reach=80)

CENTRE_SHARE = 0.5  # share of a segment's tokens that are positive

TRAIN_AUGMENT = Augment(speed=0.1, rotation_deg=10.0, scale=0.05, noise=0.02)

WINDOW = CONFIG.patch * CONFIG.num_tokens  # samples

# Number of training recordings in each split; no two splits share one. Each gives WINDOWS_EACH separate windows.
SHARES: dict[Split, int] = {"score": 12, "calibration": 12, "holdout": 4}

WINDOWS_EACH = 4

SHARES_SEED = 101


class HaptStreams:
    """Gives whole recordings of validation and test users, and windows of the training users' recordings."""

    classes = CLASSES
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(
        self, augment: Augment = TRAIN_AUGMENT, load: Callable[[], tuple[HaptRecording, ...]] = load_recordings
    ) -> None:
        self.augment = augment
        self._load = load

    @cached_property
    def training(self) -> tuple[HaptRecording, ...]:
        """Returns the recordings of the training users."""
        return self.of_users(TRAIN_USERS)

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        signals = np.concatenate([recording.signal for recording in self.training])
        moments = signals.mean(0, dtype=np.float64), signals.std(0, dtype=np.float64)
        mean, deviation = (torch.from_numpy(moment.astype(np.float32))[:, None] for moment in moments)
        return mean, deviation

    @property
    def mean(self) -> Tensor:
        """Returns the mean of each channel over the training users: [channels, 1]."""
        return self._moments[0]

    @property
    def deviation(self) -> Tensor:
        """Returns the standard deviation of each channel over the training users: [channels, 1]."""
        return self._moments[1]

    def fixed(self, split: Split) -> tuple[Stream, ...]:
        """Returns the streams of a split: whole recordings for validation and test, 48 or 16 windows for the others."""
        if split in SHARES:
            return self._windows(split)
        users = VALIDATION_USERS if split == "validation" else TEST_USERS
        return tuple(excerpt(recording, 0, len(recording.signal), recording.name) for recording in self.of_users(users))

    def train(self, duration_s: float, rng: np.random.Generator) -> Stream:
        """Returns a random stretch of a random training recording at a random speed.

        It lasts `duration_s` seconds, or less if the recording is shorter.
        """
        recording = self.training[int(rng.integers(len(self.training)))]
        factor = 1.0 + rng.uniform(-self.augment.speed, self.augment.speed)
        longest = int((len(recording.signal) - 1) / factor)
        length = min(round(duration_s * SAMPLE_RATE_HZ), longest)
        needed = int(np.ceil(length * factor)) + 1
        begin = int(rng.integers(0, max(len(recording.signal) - needed, 0) + 1))
        signal = resampled(recording.signal[begin : begin + needed], length, factor)
        segments, labels = visible(recording, begin, begin + length * factor)
        seconds = segments / (factor * SAMPLE_RATE_HZ)
        return Stream("train", augmented(signal, rng, self.augment), seconds, labels, np.zeros(0))

    def of_users(self, users: tuple[int, ...]) -> tuple[HaptRecording, ...]:
        """Returns the recordings of these users."""
        return tuple(recording for recording in self._load() if recording.user in users)

    def _windows(self, split: Split) -> tuple[Stream, ...]:
        rng = np.random.default_rng(SHARES_SEED)
        long_enough = [r for r in self.training if len(r.signal) >= WINDOWS_EACH * WINDOW]
        order = rng.permutation(len(long_enough))
        assert len(order) >= sum(SHARES.values()), "too few training recordings are long enough"
        ends = np.cumsum(list(SHARES.values()))
        shares = dict(zip(SHARES, np.split(order, ends)[:-1], strict=True))
        begins = {  # drawn for every recording, so that a split does not depend on the others
            index: WINDOW * np.arange(WINDOWS_EACH)
            + np.sort(rng.integers(0, len(long_enough[index].signal) - WINDOWS_EACH * WINDOW + 1, WINDOWS_EACH))
            for index in order.tolist()
        }
        return tuple(
            excerpt(long_enough[index], begin, begin + WINDOW, f"{long_enough[index].name}@{begin}")
            for index in sorted(shares[split].tolist())
            for begin in begins[index].tolist()
        )


def excerpt(recording: HaptRecording, begin: int, end: int, name: str) -> Stream:
    """Returns the samples `begin` to `end` (excluded) of a recording as a stream."""
    segments, labels = visible(recording, begin, end)
    return Stream(name, recording.signal[begin:end], segments / SAMPLE_RATE_HZ, labels, np.zeros(0))


def visible(recording: HaptRecording, begin: float, end: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the segments [N, 2] between two samples, in samples after `begin`, and their labels [N].

    Segments are cut at both ends. An activity stays if a second of it is left, a postural transition if half of it is.
    """
    clipped = np.stack([np.maximum(recording.bounds[:, 0], begin), np.minimum(recording.bounds[:, 1], end)], axis=1)
    length = np.diff(recording.bounds, axis=1)[:, 0]
    least = np.where(recording.labels >= FIRST_TRANSITION, length / 2, np.minimum(length, SAMPLE_RATE_HZ))
    is_long_enough = np.diff(clipped, axis=1)[:, 0] >= least
    return clipped[is_long_enough].astype(np.float64) - begin, recording.labels[is_long_enough]


class HaptTask(DetectionTask):
    """Is the task of detection on HAPT with the baseline of one seed, which is read only when it is needed."""

    def __init__(self, seed: int, source: HaptStreams) -> None:
        self.baseline = LocalBaseline("tad-hapt", seed, "recipes/train/tad_hapt.yaml")
        super().__init__(self.baseline.task, source, CONFIG, centre_share=CENTRE_SHARE, baseline=None)

    def load_baseline(self) -> nn.Module:
        """Returns the trained detector in eval mode.

        Raises:
            UserError: the baseline is missing, or was trained for another task or seed.
        """
        return self.baseline.load_into(self.build_model())


def make_hapt_task(seed: int = 0) -> HaptTask:
    """Returns the task with the baseline of a seed."""
    return HaptTask(seed, HaptStreams())


def make_seed0() -> HaptTask:
    """Returns the task with the baseline of seed 0."""
    return make_hapt_task(0)


def make_seed1() -> HaptTask:
    """Returns the task with the baseline of seed 1."""
    return make_hapt_task(1)


def make_seed2() -> HaptTask:
    """Returns the task with the baseline of seed 2."""
    return make_hapt_task(2)
