"""Keeps other jobs of the machine waiting while latency is timed, if they use the same lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

with suppress(ImportError):  # not on Windows
    import fcntl

TIMING_LOCK_VARIABLE = "TOOLKIT_TIMING_LOCK"


@contextmanager
def machine_alone() -> Iterator[None]:
    """Locks the file that TOOLKIT_TIMING_LOCK names for the length of the `with`; does nothing if it names none.

    The lock is exclusive. Jobs that hold a shared lock on the file (`flock -s FILE command`) and timings wait for each
    other.
    """
    path = os.environ.get(TIMING_LOCK_VARIABLE)
    if not path:
        yield
        return
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
