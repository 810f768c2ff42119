"""Traces a model as one graph (torch.export), which is the first step of every format."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from toolkit.base.errors import ExportError
from toolkit.exporting.axes import BATCH, NamedAxis
from toolkit.exporting.quiet import explained
from toolkit.exporting.report import TensorInfo
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import FlatOutputs, tensors_in

Inputs = tuple[Tensor, ...]

Axes = tuple[dict[int, str], ...]  # for each input, the names of its open axes


@dataclass(frozen=True)
class TracedGraph:
    """Holds a traced model.

    program: the graph, which takes `inputs` by position and returns a tuple of `outputs`.
    axes: the axes of the inputs that are open: the graph takes any size there.
    """

    program: ExportedProgram
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    axes: Axes


def run_eager(model: nn.Module, inputs: Inputs) -> tuple[list[str], list[Tensor]]:
    """Returns the names and values of the model's outputs; runs on copies of the inputs, as a model may write to them.

    Raises:
        ExportError: the model itself does not run on these inputs.
    """
    what = f"the model does not run on its example inputs of batch size {len(inputs[0])}"
    with explained(what), evaluating(model), without_fast_path(), torch.no_grad():
        value = model(*(tensor.clone() for tensor in inputs))
    names = [re.sub(r"\W", "_", name) for name in _names_in(value, "")]
    return names, tensors_in(value)


def open_axes(names: Sequence[str], named: Sequence[NamedAxis], *, any_batch: bool) -> Axes:
    """Returns the open axes of inputs with these names: the batch if it is `any_batch`, and those that are named."""
    batch = {0: BATCH} if any_batch else {}
    return tuple(batch | {axis.axis: axis.name for axis in named if axis.input == name} for name in names)


def trace_graph(model: nn.Module, inputs: Inputs, output_names: list[str], axes: Axes) -> TracedGraph:
    """Returns the graph of a model, traced on a frozen copy because tracing may leave the tracer's tensors in a model.

    output_names: one name for each output tensor.
    axes: the open axes. The inputs must have a size of 2 or more there, because the tracer makes the number 1 a
        constant.

    Raises:
        ExportError: the model's code cannot be traced, or has one size of an open axis written into it.
    """
    batch = Dim(BATCH, min=1)
    dims = tuple({axis: batch if name == BATCH else Dim.AUTO for axis, name in each.items()} for each in axes)
    shapes = (dims,) if any(axes) else None
    with explained("the model cannot be captured as a graph"):
        traced = FlatOutputs(copy_model(model)).requires_grad_(False)  # attention chooses its kernel by that
        with evaluating(traced), without_fast_path(), torch.no_grad():
            copies = tuple(tensor.clone() for tensor in inputs)
            program = torch.export.export(traced, copies, dynamic_shapes=shapes, strict=False)
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    entering, names = [values[name] for name in signature.user_inputs], input_names(model, len(inputs))
    symbols = _symbols(names, entering, axes)
    return TracedGraph(
        program=program,
        inputs=_infos(names, entering, symbols),
        outputs=_infos(output_names, [values[name] for name in signature.user_outputs], symbols),
        axes=axes,
    )


def _symbols(names: list[str], values: list[Any], axes: Axes) -> dict[str, str]:
    """Returns the name of each open axis by the tracer's symbol for its size.

    Raises:
        ExportError: the tracer found that the model takes one size alone.
    """
    symbols: dict[str, str] = {}
    for input_name, value, named in zip(names, values, axes, strict=True):
        for axis, name in named.items():
            size = str(value.shape[axis])
            if size.isdigit():  # torch.export found that out, and says it nowhere else
                raise ExportError(
                    f"--dynamic {input_name}:{axis}={name}: the model's code works for the size {size} of that axis "
                    "alone; leave that axis out"
                )
            symbols.setdefault(size, name)
    return symbols


def _infos(names: list[str], values: list[Any], symbols: Mapping[str, str]) -> tuple[TensorInfo, ...]:
    """Returns names, shapes and types of values; `symbols` holds the names of sizes by the tracer's symbols."""

    def shown(size: Any) -> int | str:
        if isinstance(size, int):
            return size
        return symbols.get(str(size)) or re.sub(r"\w+", lambda word: symbols.get(word[0], word[0]), str(size))

    return tuple(
        TensorInfo(name=name, shape=tuple(map(shown, value.shape)), dtype=str(value.dtype).removeprefix("torch."))
        for name, value in zip(names, values, strict=True)
    )


def input_names(model: nn.Module, count: int) -> list[str]:
    """Returns the names of the forward method's first `count` positional parameters, made up where it has fewer."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in positional][:count]
    return names + [f"input_{place}" for place in range(len(names), count)]


def _names_in(value: Any, prefix: str) -> list[str]:
    """Returns a name for each of `tensors_in(value)`: the keys, field names and indices that lead to it, joined."""
    if isinstance(value, Tensor):
        return [prefix or "output"]
    if isinstance(value, Mapping):
        parts = [(str(key), part) for key, part in value.items()]
    elif isinstance(value, tuple | list):
        parts = [(f"{'' if prefix else 'output_'}{place}", part) for place, part in enumerate(value)]
    elif is_dataclass(value) and not isinstance(value, type):
        parts = [(field.name, getattr(value, field.name)) for field in fields(value)]
    else:
        return []
    return [name for key, part in parts for name in _names_in(part, f"{prefix}_{key}" if prefix else key)]
