"""Builds the unmodified architecture that a manifest names; it takes registered names alone and never imports code.

A manifest may come from anyone, so the memory that it asks for is limited by the size of the weights beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue, ValidationError
from torch import Tensor, nn

from toolkit.base.errors import ExportError
from toolkit.checkpoint.manifest import InputSpec, Manifest
from toolkit.hooks.copies import copy_model
from toolkit.recipe.faults import plain_faults
from toolkit.recipe.recipe import Recipe
from toolkit.tasks.cards import TASKS, any_model_task, make_task, own_model_tasks
from toolkit.tasks.contract import TaskSettings
from toolkit.tasks.task import Task
from toolkit.zoo.build import build_skeleton
from toolkit.zoo.inputs import example_inputs, input_specs
from toolkit.zoo.limits import check_activations
from toolkit.zoo.settings import ZooModel


def example_inputs_of(origin: Task | ZooModel) -> Callable[[int], tuple[Tensor, ...]]:
    """Returns a function that gives example inputs for a batch size, of what `origin_of` returned."""
    if isinstance(origin, ZooModel):
        return lambda size: example_inputs(origin.name, origin.arguments, size, input_size=origin.input_size)
    return origin.example_inputs


def origin_of(manifest: Manifest, place: Path) -> Task | ZooModel:
    """Returns what builds the unmodified model of a saved one: a built-in task, or a model of a zoo.

    place: the path of the manifest, for messages.

    Raises:
        ExportError: the model was built by its user's own code, or the manifest is damaged.
    """
    factory = manifest.factory
    if ZOO in factory:
        try:
            return ZooModel.model_validate({"name": factory[ZOO], **{k: v for k, v in factory.items() if k != ZOO}})
        except ValidationError as error:
            raise ExportError(f"{place}: factory: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    task = _task_of(factory)
    if task is None:
        raise ExportError(
            f"{place}: this model was built by its user's own code, so its inputs are not known here; name the file "
            "that makes its task with --task FILE.py, or export it from Python: "
            "toolkit.export_run(directory, settings, task=task)"
        )
    return make_task(task)


def check_made_for(manifest: Manifest, task: str, place: Path) -> None:
    """Raises ExportError where the model was not made for the task of this name; `place` is the manifest's path."""
    made_for = manifest.factory.get("task", manifest.factory.get(ZOO))
    if made_for != task:
        raise ExportError(f"{place}: the model was made for {made_for!a}, but the task file makes the task {task!r}")


ZOO = any_model_task().name  # the key of a factory that names a model of a zoo

SPARE_BYTES = 64 * 2**20

MOST_TIMES_WEIGHTS = 100  # bytes of the unmodified model per byte of the weights file, which may hold a hundredth of it

MOST_TIMES_RESULT = 4  # bytes of an operator's result per byte of the weights file, for a batch of a few examples

MOST_ROWS = 4


def factory_of(recipe: Recipe) -> dict[str, JsonValue]:
    """Returns the manifest's entry of how the unmodified model of a recipe is built: its task, or its zoo model."""
    model = recipe.model if isinstance(recipe.task, str) else recipe.task.zoo_model()
    if model is None and not isinstance(recipe.task, str):
        return {"task": recipe.task_name, "settings": recipe.task.model_dump(mode="json")}
    if model is None:
        return {"task": recipe.task_name}
    return {ZOO: model.name, "arguments": model.arguments, "input_size": model.input_size}


def build_model(factory: Mapping[str, JsonValue], inputs: Sequence[InputSpec], weights_bytes: int) -> nn.Module:
    """Returns the architecture with arbitrary weights; the parameters of a zoo model are on the meta device.

    factory: the manifest's entry of how the model is built, as `factory_of` gave it.
    inputs: the inputs of the manifest's fingerprint.
    weights_bytes: the size of the weights file.

    Raises:
        ValueError: the factory names nothing that can be built, or the inputs are not those of its model.
        UserError: the factory names a zoo model that cannot be built, or is too large for its weights.
    """
    if ZOO in factory:
        model = _zoo_model(factory)
        _check_inputs(model, inputs)
        return build_skeleton(model.name, model.arguments, MOST_TIMES_WEIGHTS * weights_bytes + SPARE_BYTES)
    task = _task_of(factory)
    if task is None:
        raise ValueError(
            f"the manifest's factory {ascii(dict(factory))[:200]} is not known; known are {{'task': one of "
            f"{', '.join(own_model_tasks())}}} and {{'{ZOO}': 'LIBRARY/NAME', 'arguments': {{...}}}}; pass the "
            "unmodified model yourself: load_model(directory, model)"
        )
    return make_task(task).build_model()


def _task_of(factory: Mapping[str, JsonValue]) -> str | TaskSettings | None:
    """Returns the built-in task that a manifest's `factory` names, with its settings; None if it names none.

    Raises:
        ValueError: the settings are not those of the task.
    """
    name, settings = factory.get("task"), factory.get("settings")
    if isinstance(name, str) and set(factory) == {"task"} and name in own_model_tasks():
        return name
    card = TASKS.get(name) if isinstance(name, str) else None
    if card is None or card.settings is None or set(factory) != {"task", "settings"}:
        return None
    try:
        return card.settings.model_validate(settings)
    except ValidationError as error:
        fault = plain_faults(error, card.settings)[0]
        raise ValueError(f"factory: settings: {fault.place}: {fault.message}") from error


def check_memory(model: nn.Module, inputs: Sequence[InputSpec], weights_bytes: int) -> None:
    """Runs a copy of the shaped model on the meta device, to check that a real run takes little memory.

    Raises:
        ValueError: the model does not run on these inputs.
        TooLargeError: the model would need much more memory than its weights.
    """
    meta_inputs = [torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta") for spec in inputs]
    if all(not tensor.is_floating_point() for tensor in meta_inputs):
        meta_inputs = meta_inputs[
            :1
        ]  # token ids alone: what a model does with a mask depends on values, which the meta device lacks
    most_bytes = MOST_TIMES_RESULT * weights_bytes + SPARE_BYTES
    check_activations(copy_model(model).eval().to("meta"), tuple(meta_inputs), most_bytes)


def _zoo_model(factory: Mapping[str, JsonValue]) -> ZooModel:
    unknown = set(factory) - {ZOO, "arguments", "input_size"}
    if unknown:
        raise ValueError(f"factory: {min(unknown)[:80]!a} is unknown; choose from: {ZOO}, arguments, input_size")
    try:
        return ZooModel.model_validate({"name": factory[ZOO], **{k: v for k, v in factory.items() if k != ZOO}})
    except ValidationError as error:
        fault = plain_faults(error, ZooModel)[0]
        raise ValueError(f"factory: {fault.place}: {fault.message}") from error


def _check_inputs(model: ZooModel, inputs: Sequence[InputSpec]) -> None:
    """Checks that the fingerprint's inputs have the shapes and types of the model's example inputs.

    Raises:
        ValueError: the shapes or types differ, or there are too many examples.
    """
    settings = model.name, model.arguments, model.input_size
    expected = [(shape, str(dtype).removeprefix("torch.")) for shape, dtype in input_specs(*settings)]
    actual = [(spec.shape[1:], spec.dtype) for spec in inputs]
    rows = {spec.shape[:1] for spec in inputs}
    if actual != expected or len(rows) != 1 or not all(1 <= count <= MOST_ROWS for (count,) in rows):
        raise ValueError(
            f"fingerprint: the inputs {[spec.shape for spec in inputs][:4]} are not those of {model.name}: "
            f"1 to {MOST_ROWS} of {[shape for shape, _ in expected]}"
        )
