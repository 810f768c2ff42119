"""Times exported files in turns with the model in PyTorch, or with another file."""

from __future__ import annotations

from torch import Tensor, nn

from toolkit.exporting.formats.format import Runner
from toolkit.exporting.graph import Inputs
from toolkit.exporting.quiet import hushed
from toolkit.exporting.report import ExportedLatency
from toolkit.measure.latency import measure_latency
from toolkit.measure.results import Latency, MeasurementKey

_WARMUP = 3


class _Timed(nn.Module):
    """Makes an exported file a module, because only modules can be timed."""

    def __init__(self, run: Runner) -> None:
        super().__init__()
        self._run = run

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return self._run([inputs])[0]


def time_beside_model(
    run: Runner, model: nn.Module, inputs: Inputs, runtime: str, threads: int, repeats: int
) -> ExportedLatency:
    """Returns the latency of a file, and that of the model in PyTorch."""
    latency = _time(_Timed(run), model, inputs, runtime, threads, repeats)
    return ExportedLatency(
        batch_size=latency.batch_size,
        threads=threads,
        samples_s=latency.samples_s,
        eager_samples_s=latency.dense_samples_s,
    )


def time_beside_dense(
    run: Runner, run_dense: Runner, inputs: Inputs, runtime: str, threads: int, repeats: int
) -> Latency:
    """Returns the latency of a file, and that of the unmodified model's file."""
    return _time(_Timed(run), _Timed(run_dense), inputs, runtime, threads, repeats)


def _time(model: nn.Module, beside: nn.Module, inputs: Inputs, runtime: str, threads: int, repeats: int) -> Latency:
    key = MeasurementKey(runtime=runtime, device="cpu", batch_size=len(inputs[0]))
    with hushed():
        return measure_latency(model, beside, inputs, key, threads=threads, warmup=_WARMUP, repeats=repeats)
