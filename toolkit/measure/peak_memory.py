"""Measures the most memory that a model takes on CUDA, by CUDA's own counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MemoryCounter:
    """Counts the bytes in use on a device: `now` gives the present number, `most` the largest one since `reset`."""

    reset: Callable[[], None]
    now: Callable[[], int]
    most: Callable[[], int]


def counter_of(device: torch.device) -> MemoryCounter | None:
    """Returns CUDA's counter for a CUDA device, and None for any other device.

    The counter counts tensors, and not the memory that the allocator keeps in reserve.
    """
    if device.type != "cuda":
        return None
    return MemoryCounter(
        reset=lambda: torch.cuda.reset_peak_memory_stats(device),
        now=lambda: torch.cuda.memory_allocated(device),
        most=lambda: torch.cuda.max_memory_allocated(device),
    )


@torch.inference_mode()
def peak_bytes(model: nn.Module, inputs: tuple[Tensor, ...], counter: MemoryCounter) -> int:
    """Returns the bytes of the weights, the buffers and the inputs, and the most that a call takes beside them.

    Everything else on the device, such as the model that this one is compared with, is left out. The model must have
    been called before, so that the workspaces of libraries exist already.
    """
    storages = [part.untyped_storage() for part in (*model.parameters(), *model.buffers(), *inputs)]
    storage_bytes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    counter.reset()
    bytes_before = counter.now()
    model(*inputs)
    return sum(storage_bytes.values()) + counter.most() - bytes_before
