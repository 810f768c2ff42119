"""Traces a model as one graph (torch.export), which is the first step of every format."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from toolkit.exporting.quiet import explained
from toolkit.exporting.report import TensorInfo
from toolkit.hooks.copies import copy_model
from toolkit.hooks.modes import evaluating, without_fast_path
from toolkit.hooks.tensors import FlatOutputs, tensors_in

BATCH = "batch"

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class TracedGraph:
    """Holds a traced model.

    program: the graph, which takes `inputs` by position and returns a tuple of `outputs`.
    dynamic: whether the graph takes any batch size.
    """

    program: ExportedProgram
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    dynamic: bool


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


def trace_graph(model: nn.Module, inputs: Inputs, output_names: list[str], *, dynamic: bool) -> TracedGraph:
    """Returns the graph of a model, traced on a frozen copy because tracing may leave the tracer's tensors in a model.

    output_names: one name for each output tensor.
    dynamic: whether the first dimension of all inputs is one unknown number, 1 or more. The inputs must then hold 2 or
        more examples, because the tracer makes the number 1 a constant.

    Raises:
        ExportError: the model's code cannot be traced, or not for an unknown batch size.
    """
    shapes = ((tuple({0: Dim(BATCH, min=1)} for _ in inputs)),) if dynamic else None
    with explained("the model cannot be captured as a graph"):
        traced = FlatOutputs(copy_model(model)).requires_grad_(False)  # attention chooses its kernel by that
        with evaluating(traced), without_fast_path(), torch.no_grad():
            copies = tuple(tensor.clone() for tensor in inputs)
            program = torch.export.export(traced, copies, dynamic_shapes=shapes, strict=False)
    signature = program.graph_signature
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    symbol = str(values[signature.user_inputs[0]].shape[0])
    return TracedGraph(
        program=program,
        inputs=_infos(_input_names(model, len(inputs)), [values[name] for name in signature.user_inputs], symbol),
        outputs=_infos(output_names, [values[name] for name in signature.user_outputs], symbol),
        dynamic=dynamic,
    )


def _infos(names: list[str], values: list[Any], symbol: str) -> tuple[TensorInfo, ...]:
    """Returns names, shapes and types of values; `symbol` is the tracer's name of the batch size in their shapes."""
    unknown = re.compile(rf"\b{re.escape(symbol)}\b")
    return tuple(
        TensorInfo(
            name=name,
            shape=tuple(size if isinstance(size, int) else unknown.sub(BATCH, str(size)) for size in value.shape),
            dtype=str(value.dtype).removeprefix("torch."),
        )
        for name, value in zip(names, values, strict=True)
    )


def _input_names(model: nn.Module, count: int) -> list[str]:
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
