"""Keep other jobs of the same machine out of the way while latency is timed, where they agree on a lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

with suppress(ImportError):  # not on Windows
    import fcntl

TIMING_LOCK_VARIABLE = "TOOLKIT_TIMING_LOCK"


@contextmanager
def machine_alone() -> Iterator[None]:
    """Hold the file that TOOLKIT_TIMING_LOCK names, exclusively, for the length of the `with`; without it, nothing.

    Jobs that hold the same file shared (`flock -s FILE command`) and timings then wait for each other.
    """
    path = os.environ.get(TIMING_LOCK_VARIABLE)
    if not path:
        yield
        return
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
