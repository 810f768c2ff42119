"""Cuts a model of the zoo for one cell, and keeps its outputs for the process that loads it again."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from toolkit.base.console import Console
from toolkit.base.errors import UserError
from toolkit.benchmarks.zoo_matrix.cell import Cell
from toolkit.benchmarks.zoo_matrix.settings import CutOrder, Matrix
from toolkit.checkpoint.load import load_model
from toolkit.hooks.tensors import tensors_in
from toolkit.recipe.recipe import Recipe
from toolkit.record.run import RunRecord
from toolkit.running.runner import run
from toolkit.tasks.cards import make_task
from toolkit.zoo.settings import ZooModel

OUTPUTS_FILE = "outputs.safetensors"

RUN_FOLDER = "run"

BATCH = 2

MOST_TRIES = 4

FIRST_SHARE = 0.88  # first guess of the share of MACs that is left after dropping one block


def compress_cell(matrix: Matrix, model: ZooModel, order: CutOrder, folder: Path) -> Cell:
    """Runs the recipe of a cell; a `UserError` makes a cell that failed, and other exceptions are raised."""
    started = time.monotonic()
    try:
        record = _run_to_target(matrix, model, order, folder / RUN_FOLDER)
    except UserError as error:
        return Cell(model=model.name, order=order, reason=_short(error), seconds=time.monotonic() - started)
    _keep_outputs(model, folder)
    last = record.steps[-1].measurement
    ratio = _ratio(record)
    quality = last.quality_on("test")
    return Cell(
        model=model.name,
        order=order,
        stages=tuple(_describe(stage.model_dump(exclude_defaults=True), stage.type) for stage in record.recipe.stages),
        macs_ratio=ratio,
        macs_are_there=_is_there(matrix, record, order, ratio),
        agreement=None if quality is None else quality.value,
        seconds=time.monotonic() - started,
    )


def _run_to_target(matrix: Matrix, model: ZooModel, order: CutOrder, out: Path) -> RunRecord:
    """Runs the recipe of a cell until it reaches the MACs.

    If the width is cut first, the MACs of the block that is dropped later are not known. The width is then corrected
    until the result fits, and the block that was chosen in the first try is dropped in all of them.
    """
    if order != "width_then_depth":
        return _run(matrix.recipe(model, order), out)
    width = min(0.97, matrix.macs_ratio / FIRST_SHARE)
    tried: list[tuple[float, float]] = []
    block: str | None = None
    for _ in range(MOST_TRIES):
        record = _run(matrix.recipe(model, order, width, block), out)
        (block,) = record.steps[-1].detail["dropped"]
        ratio = _ratio(record)
        if abs(ratio - matrix.macs_ratio) <= matrix.macs_tolerance:
            break
        tried.append((width, ratio))
        width = min(0.98, width * matrix.macs_ratio / ratio)
        if any(abs(width - before) < 1e-3 for before, _ in tried):
            break
    return record


def _run(recipe: Recipe, out: Path) -> RunRecord:
    shutil.rmtree(out, ignore_errors=True)
    return run(recipe, out=out, console=Console(io.StringIO()))


def _ratio(record: RunRecord) -> float:
    ratio = record.steps[-1].measurement.macs.ratio_to(record.baseline.measurement.macs)
    assert ratio is not None  # the recipes have targets in multiply-adds
    return ratio


def _is_there(matrix: Matrix, record: RunRecord, order: CutOrder, ratio: float) -> bool:
    """Returns whether the MACs are within the tolerance; for depth alone, whether the last dropped block was needed."""
    if order != "depth":
        return abs(ratio - matrix.macs_ratio) <= matrix.macs_tolerance
    rounds = record.steps[-1].detail["rounds"]
    before = rounds[-2]["macs_ratio"] if len(rounds) > 1 else 1.0
    return bool(ratio <= matrix.macs_ratio < before)


def _keep_outputs(model: ZooModel, folder: Path) -> None:
    loaded = load_model(folder / RUN_FOLDER)
    with torch.inference_mode():
        outputs = tensors_in(loaded(*make_task("zoo", model).example_inputs(BATCH)))
    save_file({str(place): part.contiguous().clone() for place, part in enumerate(outputs)}, folder / OUTPUTS_FILE)


def _describe(settings: dict[str, object], kind: str) -> str:
    """Returns a stage with the settings that differ from the defaults, such as `block_drop(num_blocks=1)`."""
    return f"{kind}({', '.join(f'{key}={value}' for key, value in settings.items() if key != 'type')})"


def _short(error: UserError) -> str:
    return " ".join(str(error).split())[:400]
