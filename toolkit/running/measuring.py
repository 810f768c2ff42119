"""Measures a model of a run: multiply-adds, parameters, latency on every device of the machine, quality."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import nn

from toolkit.hooks.copies import copy_model
from toolkit.measure.macs import count_macs
from toolkit.measure.possible import is_possible
from toolkit.measure.results import Latency, Measurement, MeasurementKey
from toolkit.measure.timed import time_in_turns
from toolkit.recipe.recipe import Recipe
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.task import Task


def measure(model: nn.Module, dense: nn.Module, task: Task, recipe: Recipe, smallest_batch: int = 1) -> Measurement:
    """Returns the measurement that `recipe.measure` asks for; both models are on the recipe's device.

    smallest_batch: the smallest number of examples that the models take per call.
    """
    quality = tuple(evaluate(task, model, split) for split in recipe.measure.splits)
    inputs = tuple(part.to(recipe.device) for part in task.example_inputs(smallest_batch))
    return Measurement(
        macs=count_macs(model, inputs, smallest_batch),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        latency=tuple(_latencies(model, dense, task, recipe)),
        quality=quality,
        timeline=task.timeline(model),
    )


def latency_keys(recipe: Recipe) -> list[MeasurementKey]:
    """Returns the keys of all latencies that the recipe asks for, on the CPU and, if there is one, on CUDA.

    The run's device comes first. Runtimes and precisions that it lacks were refused with the recipe; those that the
    other device lacks are left out.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    devices.sort(key=lambda device: device != recipe.device)
    settings = recipe.measure
    combinations = itertools.product(devices, settings.runtimes, settings.precisions, settings.batch_sizes)
    keys = [
        MeasurementKey(runtime=runtime, device=device, precision=precision, batch_size=batch_size)
        for device, runtime, precision, batch_size in combinations
    ]
    return [key for key in keys if key.device == recipe.device or is_possible(key)]


def _latencies(model: nn.Module, dense: nn.Module, task: Task, recipe: Recipe) -> Iterator[Latency]:
    """Yields the latency of each key; on a device that is not the run's, copies of the models are timed."""
    settings = recipe.measure
    for device, keys in itertools.groupby(latency_keys(recipe), key=lambda key: key.device):
        pair = [model, dense]
        if device != recipe.device:
            pair = [copy_model(part).to(device) for part in pair]
        for key in keys:
            yield time_in_turns(
                pair[0],
                pair[1],
                task.example_inputs(key.batch_size),
                key,
                threads=settings.threads,
                warmup=settings.warmup,
                repeats=settings.repeats,
            )
