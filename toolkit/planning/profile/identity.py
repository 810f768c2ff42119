"""Describes what kept numbers depend on: the model's weights or structure, the data, the machine and the versions."""

from __future__ import annotations

from importlib import metadata

from torch import Tensor, nn

from toolkit.base.files import bytes_sha256
from toolkit.hooks.tensors import tensors_sha256
from toolkit.measure.environment import describe_environment
from toolkit.measure.results import MeasurementKey
from toolkit.planning.profile.costs import TimingSettings
from toolkit.planning.profile.losses import SCORING_SPLITS
from toolkit.record.plan import Criterion, ScoredOn
from toolkit.tasks.task import Task

LOSSES_VERSION = "6"  # to be raised when the way of scoring changes

COSTS_VERSION = "3"  # to be raised when the way of timing changes


def losses_about(
    task: Task, dense: nn.Module, examples: int, criterion: Criterion, scored_on: ScoredOn
) -> dict[str, str]:
    """Returns what losses depend on, by name: the model's weights, the data and the criterion, but no machine."""
    splits = [task.batches(split, 16, limit=examples) for split in (SCORING_SPLITS[scored_on], "calibration")]
    inputs = [tensor for batches in splits for batch in batches for tensor in batch.inputs]
    return {
        "tables": LOSSES_VERSION,
        "task": task.name,
        "weights": tensors_sha256(dense.state_dict().values()),
        "data": tensors_sha256(inputs),
        "examples": str(examples),
        "criterion": criterion,
        "scored on": scored_on,
    }


def costs_about(dense: nn.Module, inputs: tuple[Tensor, ...], timing: TimingSettings) -> dict[str, str]:
    """Returns what costs depend on, by name: the model's structure, the machine and the timing, but no weights.

    inputs: example inputs of batch size 1.
    """
    shapes = [(name, tuple(value.shape)) for name, value in dense.state_dict().items()]
    seen = [(tuple(part.shape), str(part.dtype)) for part in inputs]
    environment = describe_environment()
    on_gpu = timing.device.type == "cuda"
    return {
        "tables": COSTS_VERSION,
        "model": bytes_sha256([f"{dense} {shapes} {seen}".encode()]),
        "device": (environment.gpu or "cuda") if on_gpu else f"{environment.processor}, {environment.num_cores} cores",
        "dtype": str(next(dense.parameters()).dtype).removeprefix("torch."),
        "batch sizes": ", ".join(map(kept_name, timing.keys)),
        "threads": str(timing.threads),
        "torch": metadata.version("torch"),
    }


def kept_name(key: MeasurementKey) -> str:
    """Returns the name of a latency in a file of kept costs, which holds the latencies of one device.

    The name of an eager latency in float32 is its batch size alone, because files of earlier versions name it so.
    """
    return key.text.removeprefix(f"{key.device}_batch")
