"""Made-up recordings in the layout of UCI HAPT, whose samples say which class they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.tasks.hapt import HaptRecording, read_recordings
from toolkit.tasks.local_data import checksum

SAMPLES = 16_000


def made_up_arrays(users: range = range(1, 31)) -> dict[str, NDArray[Any]]:
    """Two recordings of each user; a sample of class c (1 to 12) is c in all channels, background is 0."""
    arrays: dict[str, NDArray[Any]] = {}
    rows = []
    for user in users:
        for experiment in (2 * user - 1, 2 * user):
            signal = np.zeros((SAMPLES, 6), dtype=np.float32)
            start, number = 51 + user, user
            while start + 620 < SAMPLES:
                label = number % 12 + 1
                end = start + (600 if label <= 6 else 150) - 1  # 1-based, the end included
                signal[start - 1 : end] = label
                rows.append((experiment, user, label, start, end))
                start, number = end + 1 + 60 * (number % 2), number + 1
            arrays[f"exp{experiment:02d}_user{user:02d}"] = signal
    arrays["labels"] = np.asarray(rows, dtype=np.int32)[::-1].copy()  # the order of the rows says nothing
    return arrays


def made_up_recordings(folder: Path) -> tuple[HaptRecording, ...]:
    """The recordings as they are read from a file in a folder."""
    path, arrays = folder / "made_up.npz", made_up_arrays()
    np.savez(path, **arrays)
    return read_recordings(path, checksum(arrays))
