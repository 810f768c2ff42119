"""Writes models as ONNX files, and reads them back with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.base.errors import ExportError
from toolkit.exporting.formats.format import FLOAT32_TOLERANCE, OF_GRAPHS, FileFormat, Runner, Subject, Written
from toolkit.exporting.quiet import explained
from toolkit.exporting.report import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from toolkit.exporting.graph import Inputs, TracedGraph

ONE_FILE_BYTES = 2**31 - 2**24  # most bytes of weights in one file: protobuf allows less than 2 GiB, graph included


def _write(subject: Subject, path: Path) -> Written:
    import torch  # noqa: PLC0415  # heavy

    captured, opset = subject.trace(), subject.settings.opset
    with explained("ONNX cannot express this model"):
        program: Any = torch.onnx.export(
            captured.program,
            dynamo=True,
            verbose=False,
            optimize=True,  # without it, torch writes a broken 3D convolution where the layer has no bias
            opset_version=opset,
            dynamic_shapes={"inputs": captured.axes} if any(captured.axes) else None,
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
    import torch  # noqa: PLC0415  # heavy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # the log goes past Python to the terminal; errors are raised all the same
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads would slow down the next timing
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(calls: Sequence[Inputs]) -> list[list[Tensor]]:
        arrays = [[tensor.detach().numpy() for tensor in inputs] for inputs in calls]
        outputs = [session.run(None, dict(zip(names, values, strict=True))) for values in arrays]
        return [[torch.as_tensor(value) for value in values] for values in outputs]

    return run


def _num_bytes(captured: TracedGraph) -> int:
    values = [*captured.program.state_dict.values(), *captured.program.constants.values()]
    return sum(value.numel() * value.element_size() for value in values if hasattr(value, "element_size"))


ONNX = FileFormat(
    name="onnx",
    suffix=".onnx",
    summary="for ONNX Runtime and other programs",
    packages=("onnx", "onnxscript", "onnxruntime"),
    takes=OF_GRAPHS | {"opset"},
    tolerance=FLOAT32_TOLERANCE,
    write=_write,
    read=_read,
)
