"""Says what did not fit into memory: work that runs out of it ends in one sentence with its batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError


@contextmanager
def out_of_memory_named(what: str, batch_size: Callable[[], int | None], advice: str) -> Iterator[None]:
    """Turns torch's error into one for the user. An error that was named inside is left as it is.

    batch_size: gives the number of examples that the work ran at a time, None where it had not begun.

    Raises:
        UserError: a device ran out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        size = batch_size()
        at = "" if size is None else f" at batch size {size}"
        raise UserError(f"{what}: the device is out of memory{at}; {advice}") from error


@contextmanager
def batch_size_noted(model: nn.Module) -> Iterator[Callable[[], int | None]]:
    """Gives what tells the batch size of the last call of `model`: the first dimension of its first tensor."""
    seen: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [len(part) for part in inputs if isinstance(part, Tensor) and part.dim()][:1]

    handle = model.register_forward_pre_hook(note)
    try:
        yield lambda: next(iter(seen), None)
    finally:
        handle.remove()
