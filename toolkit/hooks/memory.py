"""Turns an out-of-memory error of torch into one sentence that names the work and its batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from toolkit.base.errors import UserError


@contextmanager
def out_of_memory_named(what: str, batch_size: Callable[[], int | None], advice: str) -> Iterator[None]:
    """Turns an out-of-memory error of torch into a UserError, unless the code inside has done so already.

    what: the work, as the beginning of the sentence.
    batch_size: returns the number of examples that ran at a time, or None before the first batch.
    advice: the end of the sentence.

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
    """Yields a function that returns the batch size of the last call of `model`, and None before the first call.

    The batch size is the first dimension of the first tensor argument.
    """
    seen: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [len(part) for part in inputs if isinstance(part, Tensor) and part.dim()][:1]

    handle = model.register_forward_pre_hook(note)
    try:
        yield lambda: next(iter(seen), None)
    finally:
        handle.remove()
