"""CUDA graphs: the model's kernels are recorded once and launched as one, which saves the launches of small ones."""

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
    """Gives a call that copies its inputs to where the graph reads them, as a deployed graph must, and launches it.

    The outputs are the same memory on every call.
    """
    import torch  # noqa: PLC0415  # this file is read where recipes are checked, without torch

    held = tuple(part.clone() for part in inputs)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_CALLS_BEFORE_CAPTURE):
            model(*held)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = model(*held)

    def launch(*given: Tensor) -> Any:
        for place, part in zip(held, given, strict=True):
            place.copy_(part)
        graph.replay()
        return outputs

    yield launch


CUDA_GRAPH_RUNTIME = ModelRuntime(
    missing=lambda device: None if device == "cuda" else "a CUDA device",
    prepare=_captured,
    tells_memory=False,  # a launch allocates nothing: all memory was taken when the graph was recorded
)
