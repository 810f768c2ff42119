"""The most memory that a model takes on CUDA, by CUDA's own counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MemoryCounter:
    """Counts the bytes that are taken on a device: now, and at most since `reset`."""

    reset: Callable[[], None]
    now: Callable[[], int]
    most: Callable[[], int]


def counter_of(device: torch.device) -> MemoryCounter | None:
    """Returns CUDA's own counter for the device, which counts tensors, not what the allocator keeps in reserve.

    On the CPU there is none.
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
    """Returns the bytes of the weights, the buffers, the inputs, and what a call takes at most beside them.

    Whatever else lies on the device is left out: the model that this one is compared with lies there too. The model
    must have been called before, so that what libraries keep for themselves is taken already.
    """
    storages = [part.untyped_storage() for part in (*model.parameters(), *model.buffers(), *inputs)]
    held = {storage.data_ptr(): storage.nbytes() for storage in storages}
    counter.reset()
    before = counter.now()
    model(*inputs)
    return sum(held.values()) + counter.most() - before
