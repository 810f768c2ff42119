"""Holds the runtime `cuda_graph`: all kernels of a model are recorded once and launched together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from toolkit.measure.runtimes.runtime import ModelRuntime, Ready

if TYPE_CHECKING:
    from torch import Tensor, nn

_CALLS_BEFORE_CAPTURE: Final = 3  # libraries choose their kernels and take their workspaces in the first calls


@contextmanager
def _captured(model: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Ready]:
    """Yields a function that copies its inputs to where the recorded graph reads them, and launches the graph.

    A deployed graph has to copy its inputs too. The outputs lie in the same memory on every call.
    """
    import torch  # noqa: PLC0415  # this file is read where recipes are checked, without torch

    graph_inputs = tuple(part.clone() for part in inputs)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_CALLS_BEFORE_CAPTURE):
            model(*graph_inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = model(*graph_inputs)

    def launch(*new_inputs: Tensor) -> Any:
        for place, part in zip(graph_inputs, new_inputs, strict=True):
            place.copy_(part)
        graph.replay()
        return outputs

    yield launch


CUDA_GRAPH_RUNTIME = ModelRuntime(
    missing=lambda device: None if device == "cuda" else "a CUDA device",
    prepare=_captured,
    tells_memory=False,  # a launch allocates nothing: all memory was taken when the graph was recorded
)
