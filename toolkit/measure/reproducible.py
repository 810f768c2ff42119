"""Makes a run give the same numbers every time, and a plan the numbers of the run that it plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toolkit.measure.precision import tf32_is


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Switches TF32 off, and restores the caller's TF32 switches and random state at the end of the `with`."""
    with tf32_is(False), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
