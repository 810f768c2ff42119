"""Reads the UCI HAPT recordings of 30 people with a smartphone at the waist: activities and changes of posture.

Reyes-Ortiz et al., "Transition-aware human activity recognition using smartphones", Neurocomputing 171, 2016 (online
2015). 61 untrimmed recordings, 50 Hz, 3-axis acceleration (g) and 3-axis angular velocity (rad/s). The archive's README
forbids commercial use, so neither the recordings nor weights trained on them ship with the toolkit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.tasks.local_data import ROOT_VARIABLE, check_arrays, find_data, read_arrays

CLASSES = (
    "WALKING",
    "WALKING_UPSTAIRS",
    "WALKING_DOWNSTAIRS",
    "SITTING",
    "STANDING",
    "LAYING",
    "STAND_TO_SIT",
    "SIT_TO_STAND",
    "SIT_TO_LIE",
    "LIE_TO_SIT",
    "STAND_TO_LIE",
    "LIE_TO_STAND",
)

FIRST_TRANSITION = 6  # index of the first postural transition; the classes before it are activities

SAMPLE_RATE_HZ = 50

TEST_USERS = (2, 4, 9, 10, 12, 13, 18, 20, 24)  # the official split

VALIDATION_USERS = (27, 28, 29, 30)  # the last four of the official training users, fixed before anything was trained

TRAIN_USERS = tuple(user for user in range(1, 31) if user not in TEST_USERS + VALIDATION_USERS)

FILE = Path("hapt") / "hapt_raw_f32.npz"

SHA256 = "ffc99ebf7d9dc545c443db81b15789ebe3c19c169324457a94ef33039f800b7a"  # of the arrays, see `local_data.checksum`

HOW_TO_GET = (
    "download the archive of UCI dataset 341 (DOI 10.24432/C54G7M; its licence forbids commercial use), run "
    f"python -m toolkit.tasks.tad.hapt.convert ARCHIVE.zip --out DIR/{FILE}, and set {ROOT_VARIABLE}=DIR"
)


@dataclass(frozen=True, eq=False)
class HaptRecording:
    """Holds a recording and its labelled segments.

    signal: float32 [samples, 6], acceleration in g and angular velocity in rad/s.
    bounds: [N, 2], first sample of each segment and the one after its last.
    labels: [N], indices into `CLASSES`.
    """

    experiment: int
    user: int
    signal: NDArray[np.float32]
    bounds: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def name(self) -> str:
        """Returns the name of the recording, such as `exp01_user01`."""
        return recording_key(self.experiment, self.user)


def recording_key(experiment: int, user: int) -> str:
    """Returns the name of a recording, such as `exp01_user01`."""
    return f"exp{experiment:02d}_user{user:02d}"


def read_recordings(path: Path, sha256: str = SHA256) -> tuple[HaptRecording, ...]:
    """Returns the recordings in a file of arrays `expEE_userUU` [samples, 6] and `labels` [N, 5].

    A row of `labels` is experiment, user, class, first and last sample, all counted from 1.

    Raises:
        UserError: the file cannot be read, or its arrays are not the published ones.
    """
    arrays = read_arrays(path, HOW_TO_GET)
    check_arrays(path, arrays, sha256, HOW_TO_GET)
    table = arrays["labels"].astype(np.int64)
    recordings = []
    for experiment, user in np.unique(table[:, :2], axis=0).tolist():
        rows = table[(table[:, 0] == experiment) & (table[:, 1] == user)]
        rows = rows[np.argsort(rows[:, 3], kind="stable")]
        bounds = rows[:, 3:5] - [1, 0]  # 1-based, the end included -> 0-based, the end excluded
        signal = arrays[recording_key(experiment, user)]
        recordings.append(HaptRecording(experiment, user, signal, bounds, rows[:, 2] - 1))
    return tuple(recordings)


def load_recordings() -> tuple[HaptRecording, ...]:
    """Returns all 61 recordings, in order of experiment, from the folder that TOOLKIT_DATA names.

    Raises:
        UserError: the variable or the file is missing, or the file is not the published one.
    """
    return _read_once(find_data(FILE, "the HAPT recordings", HOW_TO_GET))


@lru_cache(maxsize=1)
def _read_once(path: Path) -> tuple[HaptRecording, ...]:
    return read_recordings(path)
