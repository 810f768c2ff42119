"""What kept numbers are bound to: the model's weights or its structure, the machine and the versions."""

from __future__ import annotations

import hashlib
from importlib import metadata

import torch
from torch import nn

from toolkit.measure.environment import describe_environment
from toolkit.planning.costs import Timing
from toolkit.task import Task

TABLES_VERSION = "1"  # goes up when the way of scoring or timing changes


def losses_about(task: Task, dense: nn.Module, examples: int) -> dict[str, str]:
    """Of losses: the same wherever they were found."""
    digest = hashlib.sha256()
    for name, value in dense.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else b"")
    return {
        "tables": TABLES_VERSION,
        "task": task.name,
        "weights": digest.hexdigest(),
        "examples": str(min(examples, task.num_examples("score"))),
    }


def costs_about(dense: nn.Module, timing: Timing) -> dict[str, str]:
    """Of costs: the same for all weights."""
    shapes = "".join(f"{name}{tuple(value.shape)}" for name, value in dense.state_dict().items())
    types = "".join(f"{name}{type(module).__name__}" for name, module in dense.named_modules())
    environment = describe_environment()
    on_gpu = timing.device.type == "cuda"
    return {
        "tables": TABLES_VERSION,
        "model": hashlib.sha256((shapes + types).encode()).hexdigest(),
        "device": (environment.gpu or "cuda") if on_gpu else f"{environment.processor}, {environment.num_cores} cores",
        "dtype": str(next(dense.parameters()).dtype).removeprefix("torch."),
        "batch sizes": ", ".join(map(str, timing.batch_sizes)),
        "threads": str(timing.threads),
        "torch": metadata.version("torch"),
    }
