"""Measures a model after a step of a run: MACs, parameters, latency on every device, quality on every split."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from toolkit.measure.latency import measure_latency
from toolkit.measure.macs import count_macs
from toolkit.measure.results import Latency, Measurement
from toolkit.recipe.recipe import Measure
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task


def example_inputs(task: Task, batch_size: int, device: torch.device) -> tuple[Tensor, ...]:
    """Returns the task's inputs for that many examples, on the device."""
    return tuple(part.to(device) for part in task.example_inputs(batch_size))


def measure(model: nn.Module, dense: nn.Module, task: Task, settings: Measure, device: torch.device) -> Measurement:
    """Returns all that a run records of `model`, which lies on the run's device as `dense` does."""
    quality = tuple(evaluate(task, model, split) for split in settings.splits)
    return Measurement(
        macs=count_macs(model, example_inputs(task, 1, device)),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        latency=tuple(
            latency
            for timed_on in _devices(device)
            for latency in _latencies(model, dense, task, settings, timed_on, is_moved=timed_on.type != device.type)
        ),
        quality=quality,
        timeline=task.timeline(model),
    )


def _devices(first: torch.device) -> list[torch.device]:
    """Returns the CPU, and CUDA where there is one, the run's device first."""
    available = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    return sorted(available, key=lambda device: device.type != first.type)


def _latencies(
    model: nn.Module, dense: nn.Module, task: Task, settings: Measure, device: torch.device, *, is_moved: bool
) -> list[Latency]:
    """Times both models at every batch size; on another device than the run's, copies of them are timed."""
    if is_moved:
        model, dense = (copy.deepcopy(part).to(device) for part in (model, dense))
    return [
        measure_latency(
            model,
            dense,
            example_inputs(task, batch_size, device),
            device=device,
            batch_size=batch_size,
            threads=settings.threads,
            warmup=settings.warmup,
            repeats=settings.repeats,
        )
        for batch_size in settings.batch_sizes
    ]
