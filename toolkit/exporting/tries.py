"""Runs a model on the inputs on which an exported file is tried: two batch sizes, and further sizes of named axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from toolkit.base.errors import ExportError
from toolkit.exporting.axes import BATCH, NamedAxis, check_axes, other_sizes
from toolkit.exporting.graph import Inputs, input_names, run_eager
from toolkit.exporting.report import ExportSettings, TensorInfo

InputsOf = Callable[[int], Inputs]


@dataclass(frozen=True)
class Try:
    """Holds inputs, and the names and values of the model's outputs for them.

    axes: the sizes of the named axes, where they are not those of the example inputs.
    """

    inputs: Inputs
    names: list[str]
    outputs: list[Tensor]
    axes: dict[str, int] = field(default_factory=dict)


def tries_of(model: nn.Module, inputs_of: InputsOf, settings: ExportSettings) -> dict[int, tuple[Try, ...]]:
    """Returns the tries of each batch size, the example inputs first.

    Raises:
        ExportError: the example inputs are of another batch size, the model does not run on them or on inputs of
            another size of a named axis, or a named axis does not exist.
    """
    tries = {}
    for size in settings.sizes:
        inputs = inputs_of(size)
        if not inputs or any(tensor.dim() == 0 or len(tensor) != size for tensor in inputs):
            shapes = [tuple(tensor.shape) for tensor in inputs]
            raise ExportError(
                f"the first dimension of every example input must be the batch size, {size}; the shapes are {shapes}"
            )
        names = input_names(model, len(inputs))
        check_axes(settings.dynamic, {name: tuple(value.shape) for name, value in zip(names, inputs, strict=True)})
        tries[size] = (
            Try(inputs, *run_eager(model, inputs)),
            *_resized_tries(model, dict(zip(names, inputs, strict=True)), settings.dynamic),
        )
    return tries


def infos_of(model: nn.Module, tried: Try) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Returns the inputs and the outputs of a model for any batch size, by their names in its code."""
    size = len(tried.inputs[0])
    return (
        tuple(map(_info, input_names(model, len(tried.inputs)), tried.inputs, [True] * len(tried.inputs))),
        tuple(map(_info, tried.names, tried.outputs, [part.shape[:1] == (size,) for part in tried.outputs])),
    )


def _info(name: str, value: Tensor, has_batch: bool) -> TensorInfo:
    shape = (BATCH, *value.shape[1:]) if has_batch else tuple(value.shape)
    return TensorInfo(name=name, shape=shape, dtype=str(value.dtype).removeprefix("torch."))


def _resized_tries(model: nn.Module, inputs: Mapping[str, Tensor], named: Sequence[NamedAxis]) -> list[Try]:
    """Returns one try with another size for each name of axes."""
    tries = []
    for name in dict.fromkeys(axis.name for axis in named):
        axes = [axis for axis in named if axis.name == name]
        size = inputs[axes[0].input].shape[axes[0].axis]
        failed: list[str] = []
        for other in other_sizes(size):
            changed = dict(inputs)
            for axis in axes:
                index = torch.arange(other) % size
                changed[axis.input] = changed[axis.input].index_select(axis.axis, index)
            resized = tuple(changed.values())
            try:
                tries.append(Try(resized, *run_eager(model, resized), {name: other}))
            except ExportError as error:
                failed.append(f"{other}: {error.__cause__}")
            else:
                break
        else:
            places = " ".join(f"{axis.input}:{axis.axis}={name}" for axis in axes)
            reason = " ".join(failed[0].split())[:200]
            raise ExportError(
                f"--dynamic {places}: the model itself runs at no other size of {name} than {size} (at {reason}); "
                "name the axes that must change with it too, or leave it out"
            )
    return tries
