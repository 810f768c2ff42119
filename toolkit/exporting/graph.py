"""A model as one graph (torch.export): the step that all formats begin with."""

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
    """The graph takes `inputs` by position and gives a tuple of `outputs`."""

    program: ExportedProgram
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    dynamic: bool


def run_eager(model: nn.Module, inputs: Inputs) -> tuple[list[str], list[Tensor]]:
    """Names and values of the model's outputs on copies of the inputs, which a model may write into.

    Raises:
        ExportError: the model itself does not run on these inputs.
    """
    what = f"the model does not run on its example inputs of batch size {len(inputs[0])}"
    with explained(what), evaluating(model), without_fast_path(), torch.no_grad():
        value = model(*(tensor.clone() for tensor in inputs))
    names = [re.sub(r"\W", "_", name) for name in _names_in(value, "")]
    return names, tensors_in(value)


def trace_graph(model: nn.Module, inputs: Inputs, output_names: list[str], *, dynamic: bool) -> TracedGraph:
    """Trace a frozen copy of the model, which may be left with tensors of the tracer's.

    `dynamic`: the first dimension of all inputs is one and the same unknown number, 1 or more. The example must then
    be 2 or more examples, since the number 1 is traced as a constant.

    Raises:
        ExportError: the model's code cannot be traced, or not for any batch size.
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
    """`symbol` is what the tracer calls the batch size."""
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
    """Those of the forward method's parameters."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind in positional][:count]
    return names + [f"input_{place}" for place in range(len(names), count)]


def _names_in(value: Any, prefix: str) -> list[str]:
    """One name for each of `tensors_in(value)`: keys, field names and places, joined."""
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
