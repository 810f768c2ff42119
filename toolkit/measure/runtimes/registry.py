"""Lists every runtime; no other file knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from toolkit.measure.results import EAGER, MeasuredRuntime
from toolkit.measure.runtimes.compiled import COMPILE_RUNTIME
from toolkit.measure.runtimes.cuda_graph import CUDA_GRAPH_RUNTIME
from toolkit.measure.runtimes.eager import EAGER_RUNTIME
from toolkit.measure.runtimes.runtime import ModelRuntime

Runtimes = Mapping[MeasuredRuntime, ModelRuntime]

RUNTIMES: Final[Runtimes] = {
    EAGER: EAGER_RUNTIME,
    "compile": COMPILE_RUNTIME,
    "cuda_graph": CUDA_GRAPH_RUNTIME,
}
