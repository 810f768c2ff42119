"""Measures which share of a forward pass's time each module takes, its children included."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from toolkit.hooks.modes import device_of, evaluating, without_fast_path
from toolkit.measure.timing_lock import machine_alone

Clock = Callable[[], float]


def module_seconds(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    *,
    warmup: int = 2,
    repeats: int = 10,
    clock: Clock = time.perf_counter,
) -> dict[str, float]:
    """Returns each module's share of the time of a pass, by name: the median over `repeats` passes after `warmup` ones.

    A module that is not called has share 0. The figures are shares and not seconds, because the hooks that take the
    time need time themselves. On CUDA every hook waits for the device, so that the shares are those of the device's
    work, kernel launches included.

    names: the names of the modules.
    clock: gives seconds.
    """
    device = device_of(model)
    shares: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        stack.enter_context(machine_alone())
        stack.enter_context(evaluating(model))
        stack.enter_context(without_fast_path())
        stack.enter_context(torch.inference_mode())
        spent: dict[str, float] = {}
        for name in names:
            for handle in _timed(model.get_submodule(name), name, spent, lambda: _now(device, clock)):
                stack.callback(handle.remove)
        for number in range(warmup + repeats):
            spent.clear()
            started = _now(device, clock)
            model(*inputs)
            total = _now(device, clock) - started
            if number >= warmup and total > 0:
                for name in names:
                    shares[name].append(spent.get(name, 0.0) / total)
    return {name: statistics.median(samples) if samples else 0.0 for name, samples in shares.items()}


def _now(device: torch.device, clock: Clock) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def _timed(
    module: nn.Module, name: str, spent: dict[str, float], now: Clock
) -> tuple[torch.utils.hooks.RemovableHandle, torch.utils.hooks.RemovableHandle]:
    start_times: list[float] = []

    def before(*_: object) -> None:
        start_times.append(now())

    def after(*_: object) -> None:
        spent[name] = spent.get(name, 0.0) + now() - start_times.pop()

    return module.register_forward_pre_hook(before), module.register_forward_hook(after)
