"""The same numbers on every run, and in planning as in what is planned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toolkit.measure.precision import tf32_is


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """The caller's random state and TF32 switches come back; in between, TF32 is off and seeds decide."""
    with tf32_is(False), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
