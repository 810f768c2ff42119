"""Times forward calls in turns with those of the dense model, so that both meet the same moments of the machine."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from toolkit.hooks.memory import out_of_memory_named
from toolkit.hooks.modes import evaluating
from toolkit.hooks.untouched import untouched
from toolkit.measure.precision import tf32_is
from toolkit.measure.results import Latency, MeasurementKey
from toolkit.measure.timing_lock import machine_alone

_SHORTEST_SAMPLE_S = 5e-3  # shorter samples are mostly the clock and the scheduler

_MOST_CALLS = 1000

_LARGEST_KEPT_BLOCK = 2**25 - 2**16  # bytes; DEFAULT_MMAP_THRESHOLD_MAX of glibc, less its own headers

Clock = Callable[[], float]

Timer = Callable[[nn.Module, int], float]  # (model, calls) -> seconds per call


def measure_latency(
    model: nn.Module,
    dense: nn.Module,
    example_inputs: tuple[Tensor, ...],
    key: MeasurementKey,
    *,
    threads: int,
    warmup: int,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> Latency:
    """Returns `repeats` latency samples of both models, after `warmup` untimed calls of each.

    A sample is one call, or the mean over as many calls as fill 5 ms. The models take turns in going first. They must
    be on the key's device, and run in its runtime and number types, as `toolkit.measure.timed` makes them; only TF32 is
    switched here. Modes, switches and the number of threads are restored. Jobs that share TOOLKIT_TIMING_LOCK wait.

    clock: gives seconds; it times calls on the CPU, whereas CUDA events time those on CUDA.

    Raises:
        ValueError: the inputs are not of the key's batch size.
        UserError: the device is out of memory.
    """
    if any(len(tensor) != key.batch_size for tensor in example_inputs):
        raise ValueError(f"the first dimension of every input must be the batch size, {key.batch_size}")
    device = torch.device(key.device)
    inputs = tuple(tensor.to(device) for tensor in example_inputs)
    timer = _cuda_timer(inputs, device) if device.type == "cuda" else _cpu_timer(inputs, clock)
    _settle_allocator()
    with (
        machine_alone(),
        timing_memory_named(key),
        untouched(model, dense),
        evaluating(model, dense),
        _cpu_threads(threads),
        tf32_is(key.precision == "tf32"),
        torch.inference_mode(),
    ):
        for _ in range(warmup):
            dense(*inputs)
            model(*inputs)
        calls = _calls_per_sample(timer, model, dense)
        samples, dense_samples = _alternate(timer, model, dense, calls, repeats)
    return Latency(
        **key.model_dump(),
        threads=threads,
        dtype=_dtype(model, inputs),
        samples_s=tuple(samples),
        dense_samples_s=tuple(dense_samples),
    )


def timing_memory_named(key: MeasurementKey) -> AbstractContextManager[None]:
    """Returns a context in which running out of memory raises an error that names the key's batch size."""
    return out_of_memory_named(f"timing on {key.where}", lambda: key.batch_size, "time smaller batches")


def _settle_allocator() -> None:
    """Makes malloc keep the memory that models free, as in a process that has run for a while.

    glibc returns a large block to the system whenever it is freed, so that every call takes page faults, until the
    process has once freed a still larger block. Which blocks these are depends on what the process did before, and
    moved the ratio of a model to itself by a fifth. glibc can keep blocks of up to 32 MiB.
    """
    torch.empty(_LARGEST_KEPT_BLOCK, dtype=torch.uint8)


def _alternate(
    timer: Timer, model: nn.Module, dense: nn.Module, calls: int, repeats: int
) -> tuple[list[float], list[float]]:
    samples: list[float] = []
    dense_samples: list[float] = []
    turn = [(dense, dense_samples), (model, samples)]
    for _ in range(repeats):
        for timed, into in turn:
            into.append(timer(timed, calls))
        turn.reverse()
    return samples, dense_samples


def _calls_per_sample(timer: Timer, model: nn.Module, dense: nn.Module) -> int:
    """Returns the calls per sample, by the faster model; each model is tried twice, as a first call may be slow."""
    fastest_s = min(timer(timed, 1) for timed in (dense, model, dense, model))
    if fastest_s * _MOST_CALLS <= _SHORTEST_SAMPLE_S:
        return _MOST_CALLS
    return max(1, math.ceil(_SHORTEST_SAMPLE_S / fastest_s))


def _cpu_timer(inputs: tuple[Tensor, ...], clock: Clock) -> Timer:
    def seconds_per_call(model: nn.Module, calls: int) -> float:
        start = clock()
        for _ in range(calls):
            model(*inputs)
        return (clock() - start) / calls

    return seconds_per_call


def _cuda_timer(inputs: tuple[Tensor, ...], device: torch.device) -> Timer:
    def seconds_per_call(model: nn.Module, calls: int) -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            start.record()
            for _ in range(calls):
                model(*inputs)
            end.record()
            torch.cuda.synchronize()
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1000 / calls

    return seconds_per_call


@contextlib.contextmanager
def _cpu_threads(threads: int) -> Iterator[None]:
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def _dtype(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Returns the number type of the model's first floating-point parameter, or of the inputs if it has none."""
    tensors = (*model.parameters(), *inputs)
    floating = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), inputs[0].dtype)
    return str(floating).removeprefix("torch.")
