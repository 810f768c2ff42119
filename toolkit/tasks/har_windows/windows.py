"""Cuts the HAPT recordings into windows that lie wholly inside one activity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from toolkit.tasks.hapt import CLASSES, FIRST_TRANSITION, HaptRecording

ACTIVITIES = CLASSES[:FIRST_TRANSITION]

WINDOW = 128  # samples: 2.56 s

STEP = WINDOW // 2  # windows overlap by half


@dataclass(frozen=True, eq=False)
class SensorWindows:
    """Holds windows and their classes.

    signals: float32 [N, 6, 128], acceleration in g and angular velocity in rad/s.
    labels: int64 [N], indices into `ACTIVITIES`.
    """

    signals: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: Tensor) -> SensorWindows:
        """Returns the windows at these positions, in this order."""
        return SensorWindows(self.signals[places], self.labels[places])


def windows_of(recordings: Iterable[HaptRecording]) -> SensorWindows:
    """Returns the windows of all labelled activities of 128 samples or more, in order of recording and time.

    Windows begin at the first sample of a segment and 64 samples apart. Postural transitions give none.
    """
    signals, labels = [], []
    for recording in recordings:
        for (first, end), label in zip(recording.bounds.tolist(), recording.labels.tolist(), strict=True):
            if label >= FIRST_TRANSITION:
                continue
            for start in range(first, end - WINDOW + 1, STEP):
                signals.append(recording.signal[start : start + WINDOW].T)
                labels.append(label)
    return SensorWindows(torch.from_numpy(np.stack(signals)), torch.tensor(labels))
