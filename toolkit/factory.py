"""Build the unmodified architecture that a manifest names. Only registered names; a manifest never imports code.

A manifest may come from anywhere, so what it asks for is held against the weights that really came with it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from pydantic import JsonValue, ValidationError
from torch import nn

from toolkit.manifest import InputSpec
from toolkit.plain_faults import plain_faults
from toolkit.recipe import Recipe
from toolkit.tasks import TASKS, ZOO, make_task
from toolkit.zoo.build import build_skeleton
from toolkit.zoo.config import ZooModel
from toolkit.zoo.inputs import input_specs
from toolkit.zoo.limits import check_activations

SPARE_BYTES = 64 * 2**20
MOST_TIMES_WEIGHTS = 100  # of the file's bytes: the unmodified model, of which the file may hold a hundredth
MOST_TIMES_RESULT = 4  # of the file's bytes: the largest result of an operator, for a batch of a few examples
MOST_ROWS = 4


def factory_of(recipe: Recipe) -> dict[str, JsonValue]:
    """What a manifest says of where the unmodified model of a recipe comes from."""
    if recipe.model is None:
        return {"task": recipe.task}
    model = recipe.model
    return {ZOO: model.name, "arguments": model.arguments, "input_size": model.input_size}


def build_model(factory: Mapping[str, JsonValue], inputs: Sequence[InputSpec], weights_bytes: int) -> nn.Module:
    """The architecture with arbitrary weights; `factory` is one of `factory_of`, `inputs` those of the fingerprint.

    The parameters of a zoo model are on the meta device (see `toolkit.zoo.skeleton`).

    Raises:
        ValueError: the factory names nothing that can be built, or not with these inputs.
        UserError: it names a model of a zoo that cannot be built as it says, or is too large for its weights.
    """
    if ZOO in factory:
        model = _zoo_model(factory)
        _check_inputs(model, inputs)
        return build_skeleton(model.name, model.arguments, MOST_TIMES_WEIGHTS * weights_bytes + SPARE_BYTES)
    name = factory.get("task")
    names = [task for task in TASKS if task != ZOO]
    if set(factory) != {"task"} or not isinstance(name, str) or name not in names:
        raise ValueError(
            f"the factory {ascii(dict(factory))[:200]} is not known (there is {{'task': one of {', '.join(names)}}} "
            f"and {{'{ZOO}': 'LIBRARY/NAME', 'arguments': {{...}}}}); pass the unmodified model yourself: "
            "load_model(directory, model)"
        )
    built: nn.Module = make_task(name).build_model()
    return built


def check_memory(model: nn.Module, inputs: Sequence[InputSpec], weights_bytes: int) -> None:
    """Run a copy of the shaped model on the meta device, so that running it for real is known to take little memory.

    Raises:
        ValueError: it does not run on these inputs.
        TooLargeError: it would need much more memory than its weights.
    """
    made = [torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device="meta") for spec in inputs]
    if all(not tensor.is_floating_point() for tensor in made):
        made = made[:1]  # token ids: what models do with a mask depends on its values, which the meta device has not
    most_bytes = MOST_TIMES_RESULT * weights_bytes + SPARE_BYTES
    check_activations(copy.deepcopy(model).eval().to("meta"), tuple(made), most_bytes)


def _zoo_model(factory: Mapping[str, JsonValue]) -> ZooModel:
    unknown = set(factory) - {ZOO, "arguments", "input_size"}
    if unknown:
        raise ValueError(f"factory: {min(unknown)[:80]!a} is unknown; there is {ZOO}, arguments, input_size")
    try:
        return ZooModel.model_validate({"name": factory[ZOO], **{k: v for k, v in factory.items() if k != ZOO}})
    except ValidationError as error:
        fault = plain_faults(error, ZooModel)[0]
        raise ValueError(f"factory: {fault.place}: {fault.message}") from error


def _check_inputs(model: ZooModel, inputs: Sequence[InputSpec]) -> None:
    """The fingerprint was taken on a few of the model's own example inputs, or on something that nobody made."""
    settings = model.name, model.arguments, model.input_size
    expected = [(shape, str(dtype).removeprefix("torch.")) for shape, dtype in input_specs(*settings)]
    found = [(spec.shape[1:], spec.dtype) for spec in inputs]
    rows = {spec.shape[:1] for spec in inputs}
    if found != expected or len(rows) != 1 or not all(1 <= count <= MOST_ROWS for (count,) in rows):
        raise ValueError(
            f"fingerprint: its inputs {[spec.shape for spec in inputs][:4]} are not those of {model.name}: "
            f"1 to {MOST_ROWS} of {[shape for shape, _ in expected]}"
        )
