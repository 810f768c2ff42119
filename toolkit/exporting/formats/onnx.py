"""Writes models as ONNX files, and reads them back with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.format import FileFormat, Runner, Written
from toolkit.exporting.graph import BATCH, Inputs, TracedGraph
from toolkit.exporting.quiet import explained
from toolkit.exporting.report import TensorInfo

ONE_FILE_BYTES = 2**31 - 2**24  # most bytes of weights in one file: protobuf allows less than 2 GiB, graph included


def _write(captured: TracedGraph, path: Path, opset: int | None) -> Written:
    with explained("ONNX cannot express this model"):
        program: Any = torch.onnx.export(
            captured.program,
            dynamo=True,
            verbose=False,
            optimize=True,  # without it, torch writes a broken 3D convolution where the layer has no bias
            opset_version=opset,
            dynamic_shapes={"inputs": tuple({0: BATCH} for _ in captured.inputs)} if captured.dynamic else None,
        )
        written_opset = program.model.opset_imports[""]
        if opset not in (None, written_opset):  # torch keeps its own opset, with no more than a log entry
            raise ExportError(
                f"this model cannot be written with ONNX opset {opset}, only with {written_opset}; leave out opset"
            )
        inputs, outputs = _name_ends(program.model.graph, captured)
        program.save(path, external_data=_num_bytes(captured) > ONE_FILE_BYTES)
    beside = path.with_name(path.name + ".data")
    return Written((path, beside) if beside.exists() else (path,), inputs, outputs, written_opset)


def _name_ends(graph: Any, captured: TracedGraph) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Gives inputs and outputs the model's names; adds underscores where a value within the graph has the same name."""
    within = [value for node in graph.all_nodes() for value in node.outputs]
    taken = {value.name for value in (*within, *graph.inputs, *graph.initializers.values())}
    named = []
    for values, infos in ((graph.inputs, captured.inputs), (graph.outputs, captured.outputs)):
        ends = []
        for value, info in zip(values, infos, strict=True):
            name = info.name
            while name in taken and name != value.name:
                name += "_"
            taken.add(name)
            value.name = name
            ends.append(info.model_copy(update={"name": name}))
        named.append(tuple(ends))
    return named[0], named[1]


def _read(path: Path, threads: int) -> Runner:
    import onnxruntime  # noqa: PLC0415  # heavy, and an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # the log goes past Python to the terminal; errors are raised all the same
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would slow down the next timing
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(inputs: Inputs) -> list[Tensor]:
        arrays = [tensor.detach().numpy() for tensor in inputs]
        return [torch.as_tensor(value) for value in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


def _num_bytes(captured: TracedGraph) -> int:
    tensors = [*captured.program.state_dict.values(), *captured.program.constants.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))


ONNX = FileFormat(packages=("onnx", "onnxscript", "onnxruntime"), write=_write, read=_read)
