"""Reads the `watch` recordings (BSD licence): smartwatch inertial data of shoulder exercises.

Burns et al., "Shoulder physiotherapy exercise recognition", arXiv 1802.01489. 140 recordings of 20 repetitions each,
50 Hz, 10 subjects, both arms, 7 exercises; 3-axis acceleration (g) and 3-axis angular velocity (rad/s). They come with
the package seglearn, whose file is read here without importing the package.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from toolkit.base.errors import UserError
from toolkit.base.files import bytes_sha256

SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

SAMPLE_RATE_HZ = 50

ACTIONS = ("PEN", "ABD", "FEL", "IR", "ER")

BACKGROUND = ("TRAP", "ROW")

SOURCE = "seglearn==1.2.5 (seglearn/data/watch_dataset.npy)"


@dataclass(frozen=True, eq=False)
class WatchRecording:
    """Holds one set of repetitions of an exercise.

    arm: "left" or "right".
    signal: float32 [samples, 6], acceleration in g and angular velocity in rad/s.
    """

    subject: int
    arm: str
    exercise: str
    signal: NDArray[np.float32]


def _locate() -> Path:
    try:
        return Path(str(distribution("seglearn").locate_file("seglearn/data/watch_dataset.npy")))
    except PackageNotFoundError as error:
        raise UserError(f"the watch recordings are missing: install {SOURCE}") from error


def read_recordings(path: Path) -> tuple[WatchRecording, ...]:
    """Returns the recordings in a file of pickled arrays, which are only unpickled if the file's SHA-256 is right.

    Raises:
        UserError: the file cannot be read, or is not the one published with seglearn 1.2.5.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); reinstall {SOURCE}") from error
    actual = bytes_sha256([content])
    if actual != SHA256:
        raise UserError(f"{path}: SHA-256 is {actual}, expected {SHA256}; reinstall {SOURCE}")
    data = np.load(io.BytesIO(content), allow_pickle=True).item()
    return tuple(
        WatchRecording(int(subject), "right" if side else "left", data["y_labels"][label], signal.astype(np.float32))
        for signal, label, subject, side in zip(data["X"], data["y"], data["subject"], data["side"], strict=True)
    )


@lru_cache(maxsize=1)
def load_recordings() -> tuple[WatchRecording, ...]:
    """Returns all 140 recordings, from the installed package seglearn.

    Raises:
        UserError: the package is not installed, or its file is not the published one.
    """
    return read_recordings(_locate())
