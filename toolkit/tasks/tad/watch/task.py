"""Holds the task `tad-watch`: temporal action detection on real smartwatch recordings, spliced into streams."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toolkit.tasks.baseline import read_baseline
from toolkit.tasks.tad.augment import Augment
from toolkit.tasks.tad.detection import DetectionTask
from toolkit.tasks.tad.model import DetectorConfig
from toolkit.tasks.tad.streams import Stream
from toolkit.tasks.tad.watch.data import ACTIONS, BACKGROUND, SAMPLE_RATE_HZ, load_recordings
from toolkit.tasks.tad.watch.splice import SpliceConfig, Splicer
from toolkit.tasks.task import Split

TRAIN_SUBJECTS = (1, 2, 3, 4, 5)

VALIDATION_SUBJECTS = (6, 7)

TEST_SUBJECTS = (8, 9, 10)

ARMS = ("left", "right")

STREAM_S = 230.4

# split -> (subjects, streams for each subject and arm, seed)
FIXED: dict[Split, tuple[tuple[int, ...], int, int]] = {
    "score": (TRAIN_SUBJECTS, 1, 101),
    "calibration": (TRAIN_SUBJECTS, 1, 102),
    "holdout": (TRAIN_SUBJECTS, 1, 103),
    "validation": (VALIDATION_SUBJECTS, 5, 104),
    "test": (TEST_SUBJECTS, 4, 105),
}

CONFIG = DetectorConfig(num_channels=6, num_classes=len(ACTIONS))

CENTRE_SHARE = 0.5  # share of a segment's tokens that are positive

BASELINE = Path(__file__).parent / "baseline"

TRAIN_AUGMENT = Augment(speed=0.15, rotation_deg=20.0, scale=0.1, noise=0.05)


class WatchStreams:
    """Gives streams of the watch recordings; the subjects of training, validation and test are disjoint."""

    classes = ACTIONS
    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, augment: Augment = TRAIN_AUGMENT, *, shuffled: bool = False) -> None:
        self.augment = augment
        self._splice = SpliceConfig(sample_rate_hz=SAMPLE_RATE_HZ, shuffled=shuffled)
        self._splicers: dict[tuple[int, str], Splicer] = {}

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        signals = np.concatenate([r.signal for r in load_recordings() if r.subject in TRAIN_SUBJECTS])
        return torch.from_numpy(signals.mean(0))[:, None], torch.from_numpy(signals.std(0))[:, None]

    @property
    def mean(self) -> Tensor:
        """Returns the mean of each channel over the training subjects: [channels, 1]."""
        return self._moments[0]

    @property
    def deviation(self) -> Tensor:
        """Returns the standard deviation of each channel over the training subjects: [channels, 1]."""
        return self._moments[1]

    def splicer(self, subject: int, arm: str) -> Splicer:
        """Returns the splicer of one subject and arm, which is made once."""
        if (subject, arm) not in self._splicers:
            recordings = [r for r in load_recordings() if (r.subject, r.arm) == (subject, arm)]
            self._splicers[subject, arm] = Splicer(
                {name: [r.signal for r in recordings if r.exercise == name] for name in ACTIONS},
                {name: [r.signal for r in recordings if r.exercise == name] for name in BACKGROUND},
                self._splice,
            )
        return self._splicers[subject, arm]

    def fixed(self, split: Split) -> tuple[Stream, ...]:
        """Returns the streams of a split, of 230.4 s each."""
        subjects, count, seed = FIXED[split]
        rng = np.random.default_rng(seed)
        return tuple(
            self.splicer(subject, arm).stream(f"subject{subject:02d}-{arm}-{index}", STREAM_S, rng)
            for subject in subjects
            for arm in ARMS
            for index in range(count)
        )

    def train(self, duration_s: float, rng: np.random.Generator) -> Stream:
        """Returns a new augmented stream of a random training subject and arm."""
        subject = TRAIN_SUBJECTS[int(rng.integers(len(TRAIN_SUBJECTS)))]
        arm = ARMS[int(rng.integers(len(ARMS)))]
        return self.splicer(subject, arm).stream("train", duration_s, rng, self.augment)


def make_watch_task() -> DetectionTask:
    """Returns the task `tad-watch` with the baseline that ships with the toolkit."""
    return DetectionTask(
        "tad-watch", WatchStreams(), CONFIG, centre_share=CENTRE_SHARE, baseline=read_baseline(BASELINE)
    )
