"""Binds a run to its baseline: tries the baseline before any work, and refuses to resume with another one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.base.errors import RecordError, StageError, UserError
from toolkit.base.settings import Detail
from toolkit.hooks.state import load_state
from toolkit.hooks.tensors import tensors_sha256
from toolkit.hooks.trial import told
from toolkit.measure.macs import count_macs
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RUN_FILE, RunRecord
from toolkit.tasks.rebuilt import check_rebuilt
from toolkit.tasks.task import Task
from toolkit.tasks.trial import build_model, inputs_of, smallest_batch

# Key of the first step of a record -> what differs from the begun run if the hash under this key differs.
_MEANINGS = {"inputs_sha256": "example inputs", "weights_sha256": "weights", "baseline_sha256": "weights"}


def origin_of(dense: nn.Module, inputs: tuple[Tensor, ...]) -> Detail:
    """Returns hashes of the example inputs and of all tensors of the baseline, even those in plain attributes."""
    state = [value for value in dense.state_dict().values() if isinstance(value, Tensor)]
    attributes = [value for module in dense.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return {
        "baseline_sha256": tensors_sha256([*state, *dense.buffers(), *attributes]),
        "inputs_sha256": tensors_sha256(inputs),
    }


def check_origin(record: RunRecord, origin: Detail, out: Path) -> None:
    """Checks that a resumed run has the baseline and the example inputs that it began with.

    Older records hold fewer hashes; what they do not hold is not checked.

    origin: the hashes of the present baseline.

    Raises:
        RecordError: a hash differs from the recorded one.
    """
    if not record.steps:
        return
    recorded = record.baseline.detail
    for key in ("weights_sha256", "baseline_sha256", "inputs_sha256"):
        is_known = key in recorded or key == "weights_sha256"
        if is_known and recorded.get(key) != origin.get(key):
            raise RecordError(
                f"{out / RUN_FILE} was begun with other {_MEANINGS[key]}; start a new run with another --out"
            )


def try_baseline(recipe: Recipe, task: Task, dense: nn.Module, device: torch.device) -> int:
    """Tries the baseline before any work, and returns the smallest number of examples that it takes per call.

    dense: the baseline, on `device`.

    Raises:
        UserError: the baseline does not run, is not what `build_model` builds, or cannot be measured as the recipe
            asks.
        StageError: a stage has a target in multiply-adds, and the baseline's cannot be counted in full.
    """

    def inputs(size: int) -> tuple[Tensor, ...]:
        return tuple(part.to(device) for part in inputs_of(task, size))

    smallest = smallest_batch(dense, inputs)
    too_few = [size for size in recipe.measure.batch_sizes if size < smallest]
    if too_few:
        raise UserError(
            f"measure.batch_sizes: {too_few[0]} is too few: the model takes at least {smallest} examples per call"
        )
    check_rebuilt(dense, _rebuilt(task, dense), inputs_of(task, smallest + 1), "what load_baseline gives")
    macs = count_macs(dense, inputs(smallest))
    if not macs.is_partial and not macs.total:
        raise UserError("the model has no matrix product and no convolution, so there is nothing to compress")
    for index, stage in enumerate(recipe.stages):
        if macs.is_partial and stage.target_macs_ratio is not None:
            raise StageError(
                f"{stage.type}: macs_ratio needs a full count of multiply-adds, and this model's is partial: "
                f"{macs.why_partial}; set another target, or write the layer with matrix products or convolutions",
                index,
            )
    return smallest


def _rebuilt(task: Task, dense: nn.Module) -> nn.Module:
    """Returns a new model of `build_model` with the baseline's weights, in eval mode, as saved models are loaded.

    Raises:
        UserError: `build_model` fails or gives no module, or the weights do not fit.
    """
    model = build_model(task)
    try:
        load_state(model, dense.state_dict())
    except Exception as error:  # whatever a model's own way of loading raises
        raise UserError(
            f"the weights of what load_baseline of task {task.name!r} gives do not fit what build_model builds: "
            f"{told(error)}"
        ) from error
    return model.eval()
