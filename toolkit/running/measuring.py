"""Measures a model of a run: multiply-adds, parameters, latency on every device of the machine, quality."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn

from toolkit.base.console import Console
from toolkit.hooks.copies import copy_model
from toolkit.measure.counted import Macs
from toolkit.measure.input_macs import macs_of_inputs
from toolkit.measure.macs import count_macs
from toolkit.measure.possible import is_possible
from toolkit.measure.results import Latency, Measurement, MeasurementKey
from toolkit.measure.timed import time_in_turns
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RunRecord, StepRecord
from toolkit.stand_ins.decisions import gated_layers
from toolkit.tasks.evaluate import evaluate
from toolkit.tasks.groups import groups_of
from toolkit.tasks.task import Task

Result = TypeVar("Result")

MOST_TIMED = 8  # batches of real inputs that a model with gates is timed on


def measure(
    model: nn.Module,
    dense: nn.Module,
    task: Task,
    recipe: Recipe,
    smallest_batch: int = 1,
    console: Console | None = None,
) -> Measurement:
    """Returns the measurement that `recipe.measure` asks for; both models are on the recipe's device.

    smallest_batch: the smallest number of examples that the models take per call.
    console: shows how many of the splits and latencies are done; None shows nothing.
    """
    splits, keys = recipe.measure.splits, latency_keys(recipe)
    with contextlib.ExitStack() as stack:
        bar = None if console is None else stack.enter_context(console.progress("measuring", len(splits) + len(keys)))

        def done(result: Result) -> Result:
            if bar is not None:
                bar.advance()
            return result

        quality = tuple(done(evaluate(task, model, split)) for split in splits)
        latencies = tuple(done(latency) for latency in _latencies(model, dense, task, recipe, keys))
    return Measurement(
        macs=_macs(model, task, recipe, smallest_batch),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        latency=latencies,
        quality=quality,
        timeline=task.timeline(model),
    )


def in_words(step: StepRecord, record: RunRecord) -> str:
    """Returns what a step of a run measured, as one line of text."""
    measurement = step.measurement
    ratio = measurement.macs.ratio_to(record.baseline.measurement.macs)
    parts = ["the count of MACs is partial" if ratio is None else f"{ratio:.3f} of the dense MACs"]
    for latency in measurement.latency:
        where = "" if latency.key.where == record.recipe.device else f" on {latency.key.where}"
        parts.append(f"latency ratio {latency.ratio:.2f} at batch {latency.batch_size}{where}")
    parts += [f"{quality.metric} {quality.value:.4f} on {quality.split}" for quality in measurement.quality]
    return f"  {', '.join(parts)} ({step.seconds:.0f} s)"


def _macs(model: nn.Module, task: Task, recipe: Recipe, smallest_batch: int) -> Macs:
    """Returns the multiply-adds of one example; for a model with gates their mean over the validation examples."""
    macs = count_macs(
        model, tuple(part.to(recipe.device) for part in task.example_inputs(smallest_batch)), smallest_batch
    )
    if not gated_layers(model):
        return macs
    batches = (tuple(part.to(recipe.device) for part in batch.inputs) for batch in task.batches("validation", 16))
    of_inputs = macs_of_inputs(model, batches, smallest_batch, groups_of(task, "validation"))
    return macs.model_copy(update={"total": round(of_inputs.mean), "of_inputs": of_inputs})


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


def _latencies(
    model: nn.Module, dense: nn.Module, task: Task, recipe: Recipe, keys: Sequence[MeasurementKey]
) -> Iterator[Latency]:
    """Yields the latency of each key; on a device that is not the run's, copies of the models are timed."""
    for device, keys_of_device in itertools.groupby(keys, key=lambda key: key.device):
        pair = [model, dense]
        if device != recipe.device:
            pair = [copy_model(part).to(device) for part in pair]
        for key in keys_of_device:
            yield _timed(pair[0], pair[1], task, recipe, key)


def _timed(model: nn.Module, dense: nn.Module, task: Task, recipe: Recipe, key: MeasurementKey) -> Latency:
    """Returns the latency for a key; models with gates are timed on several batches of real inputs, not on one."""
    settings = recipe.measure
    sets = [task.example_inputs(key.batch_size)]
    if gated_layers(model):
        batches = task.batches("score", key.batch_size, limit=MOST_TIMED * key.batch_size)
        sets = [batch.inputs for batch in batches if len(batch.inputs[0]) == key.batch_size] or sets
    repeats = math.ceil(settings.repeats / len(sets))
    parts = [
        time_in_turns(model, dense, inputs, key, threads=settings.threads, warmup=settings.warmup, repeats=repeats)
        for inputs in sets
    ]
    samples = [sample for part in parts for sample in part.samples_s]
    dense_samples = [sample for part in parts for sample in part.dense_samples_s]
    return parts[0].model_copy(update={"samples_s": tuple(samples), "dense_samples_s": tuple(dense_samples)})
