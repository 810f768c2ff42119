"""Measures how far the outputs of a model's convolutions repeat themselves over channels and over time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.channels.layers import is_conv, num_outputs
from toolkit.hooks.modes import device_of
from toolkit.hooks.points import Inputs
from toolkit.hooks.trial import try_model
from toolkit.redundancy.figures import figures_of
from toolkit.redundancy.report import EXAMPLES, POSITIONS, LayerRedundancy, RedundancyReport
from toolkit.redundancy.statistics import Collector, LayerStatistics, in_groups
from toolkit.tasks.batches import batches_of
from toolkit.tasks.task import Split, Task

BATCH_SIZE = 16

MEMORY_BYTES = 2**28  # for covariances; layers with more channels are measured in several passes over the data


def redundancy_of(
    task: Task,
    model: nn.Module,
    *,
    name: str,
    console: Console,
    examples: int = EXAMPLES,
    positions: int = POSITIONS,
    seed: int = 0,
    memory_bytes: int = MEMORY_BYTES,
) -> RedundancyReport:
    """Returns what the convolutions of a model repeat, in eval mode; the model is left as it was.

    Partners, kept channels and maps are chosen on the split `calibration` of the task; all figures are of its split
    `holdout`, and of a convolution's own output, in front of norms and activations. Where positions are few, the
    damping of a fit is chosen on `holdout`, too, as repairs choose theirs.

    name, examples, positions, seed: as in `RedundancyReport`, in which `model` is the name.
    memory_bytes: the size of all covariances that are held at once; the data are gone through as often as it takes.

    Raises:
        UserError: the model has no convolution or does not run, or the task gives no data.
    """
    layers = {path: num_outputs(module) for path, module in model.named_modules() if is_conv(module)}
    if not layers:
        raise UserError(f"{name} has no convolution (nn.Conv1d, nn.Conv2d, nn.Conv3d), so there is nothing to measure")

    def collected(group: list[str], split: Split) -> dict[str, LayerStatistics]:
        return Collector(model, group, positions, seed).run(_inputs(task, split, examples, device_of(model)))

    try_model(model, next(_inputs(task, "calibration", examples, device_of(model))), name)
    found: dict[str, LayerRedundancy | str] = {}
    with console.progress(f"measuring {len(layers)} convolutions", len(layers)) as progress:
        for group in in_groups(layers, memory_bytes):
            fitted, held = collected(group, "calibration"), collected(group, "holdout")
            for path in group:
                found[path] = figures_of(path, model.get_submodule(path), fitted.pop(path, None), held.pop(path, None))
                progress.advance()
    return RedundancyReport(
        model=name,
        task=task.name,
        examples=examples,
        positions=positions,
        seed=seed,
        layers=tuple(layer for layer in found.values() if not isinstance(layer, str)),
        not_measured={path: reason for path, reason in found.items() if isinstance(reason, str)},
    )


def _inputs(task: Task, split: Split, examples: int, device: torch.device) -> Iterator[Inputs]:
    for batch in batches_of(task, split, BATCH_SIZE, limit=examples, needed_by="--redundancy"):
        yield tuple(part.to(device) for part in batch.inputs)
