"""Export a model and prove it: the file appears only after it was read back and computed what the model does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from toolkit.base.errors import ExportError
from toolkit.base.files import file_sha256, move_file, write_atomically
from toolkit.exporting.formats.format import Runner, Written
from toolkit.exporting.formats.registry import FILE_FORMATS, read, require_packages, write
from toolkit.exporting.graph import Inputs, run_eager, trace_graph
from toolkit.exporting.parity import check_tolerance, compare
from toolkit.exporting.quiet import explained, hushed
from toolkit.exporting.report import ExportedFile, ExportedLatency, ExportReport, ExportSettings, Parity
from toolkit.measure.environment import describe_environment
from toolkit.measure.latency import measure_latency
from toolkit.measure.results import Environment, MeasurementKey

_WARMUP = 3


@dataclass(frozen=True)
class _Example:
    """Inputs of one batch size, and what the model makes of them."""

    inputs: Inputs
    names: list[str]
    outputs: list[Tensor]


@dataclass(frozen=True)
class _Job:
    model: nn.Module
    settings: ExportSettings
    threads: int
    examples: Mapping[int, _Example]


@dataclass(frozen=True)
class _Checked:
    """A file that was read back and computes what the model does, at the batch sizes of `parity`."""

    written: Written
    run: Runner
    parity: tuple[Parity, ...]


def export_model(
    model: nn.Module,
    example_inputs_of: Callable[[int], Inputs],
    path: Path | str,
    settings: ExportSettings,
    *,
    weights_sha256: str | None = None,
) -> ExportReport:
    """Write `model`, which is on the CPU and is not changed, to `path`, and the report to `path`.json.

    `example_inputs_of(n)` gives the model's positional inputs for n examples, first dimension n. Where no file of any
    batch size can be made, `fixed_because` in the report says why, and the file has a fixed one. A fixed file for the
    other batch size is then made too, checked, and thrown away. `weights_sha256` is for the report alone.

    Raises:
        ExportError: the file exists, the format cannot express the model (with the exporter's reason), or the file
            does not compute what the model does. Nothing is left behind then.
    """
    path = Path(path)
    if path.exists():
        raise ExportError(f"{path}: exists already; remove it or choose another place")
    require_packages(settings.format)
    job = _Job(
        model=model,
        settings=settings,
        threads=settings.threads or torch.get_num_threads(),
        examples={size: _example(model, example_inputs_of, size) for size in settings.sizes},
    )
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
        part.mkdir(parents=True)
        checked, batch_size, fixed_because = _export(job, part, path.name)
        report = _report(job, checked, batch_size, fixed_because, weights_sha256)
        for file in reversed(checked[batch_size or 1].written.files):  # the one that names the others comes last
            move_file(file, path.with_name(file.name))
        write_atomically(path.with_name(f"{path.name}.json"), report.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def _report(
    job: _Job,
    checked: Mapping[int, _Checked],
    batch_size: int | None,
    fixed_because: str | None,
    weights_sha256: str | None,
) -> ExportReport:
    """Describes the file that is kept, with the parity of every batch size; times it where that is wanted."""
    settings, written = job.settings, checked[batch_size or 1].written
    return ExportReport(
        settings=settings,
        files=tuple(_describe(file) for file in written.files),
        opset=written.opset,
        batch_size=batch_size,
        fixed_because=fixed_because,
        inputs=written.inputs,
        outputs=written.outputs,
        parity=tuple(entry for size in job.examples for entry in checked[size].parity if entry.batch_size == size),
        latency=_measure(job, checked) if settings.latency_repeats else (),
        weights_sha256=weights_sha256,
        environment=_environment(FILE_FORMATS[settings.format].packages),
    )


def _example(model: nn.Module, example_inputs_of: Callable[[int], Inputs], size: int) -> _Example:
    inputs = example_inputs_of(size)
    if not inputs or any(tensor.dim() == 0 or len(tensor) != size for tensor in inputs):
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise ExportError(f"the first dimension of every example input must be the batch size, {size}; it is {shapes}")
    return _Example(inputs, *run_eager(model, inputs))


def _export(job: _Job, part: Path, name: str) -> tuple[dict[int, _Checked], int | None, str | None]:
    """What was checked at each batch size, the fixed batch size or None for any, and why it is fixed."""
    reason = None
    if not job.settings.static_batch:
        try:
            checked = _export_one(job, part / "any" / name, tuple(job.examples), dynamic=True)
            return dict.fromkeys(job.examples, checked), None, None
        except ExportError as error:
            reason = str(error)
    try:
        fixed = {size: _export_one(job, part / str(size) / name, (size,), dynamic=False) for size in job.examples}
    except ExportError as error:
        if reason in (None, str(error)):
            raise
        raise ExportError(f"{error}; and for any batch size: {reason}") from error
    return fixed, job.settings.batch_size or 1, reason


def _export_one(job: _Job, path: Path, sizes: tuple[int, ...], *, dynamic: bool) -> _Checked:
    path.parent.mkdir()
    traced = job.examples[max(sizes)]
    captured = trace_graph(job.model, traced.inputs, traced.names, dynamic=dynamic)
    settings = job.settings
    written = write(captured, path, settings.format, opset=settings.opset)
    run = read(path, settings.format, job.threads)
    parity: list[Parity] = []
    for size in sizes:
        example = job.examples[size]
        with explained(f"the exported file does not run at batch size {size}"), torch.no_grad():
            found = run(tuple(tensor.detach().clone() for tensor in example.inputs))
        parity += compare(example.names, example.outputs, found, size)
    check_tolerance(parity, settings.tolerance)
    return _Checked(written, run, tuple(parity))


class _Timed(nn.Module):
    """An exported file as a module, which is what timing takes."""

    def __init__(self, run: Runner) -> None:
        super().__init__()
        self._run = run

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return self._run(inputs)


def _measure(job: _Job, checked: Mapping[int, _Checked]) -> tuple[ExportedLatency, ...]:
    entries = []
    for size, example in job.examples.items():
        with hushed():
            latency = measure_latency(
                _Timed(checked[size].run),
                job.model,
                example.inputs,
                MeasurementKey(runtime=job.settings.format, device="cpu", batch_size=size),
                threads=job.threads,
                warmup=_WARMUP,
                repeats=job.settings.latency_repeats,
            )
        entry = ExportedLatency(
            batch_size=size,
            threads=job.threads,
            samples_s=latency.samples_s,
            eager_samples_s=latency.dense_samples_s,
        )
        entries.append(entry)
    return tuple(entries)


def _describe(file: Path) -> ExportedFile:
    return ExportedFile(name=file.name, bytes=file.stat().st_size, sha256=file_sha256(file))


def _environment(packages: tuple[str, ...]) -> Environment:
    """This process's machine, with the versions of these packages too."""
    found = describe_environment()
    versions = {name: metadata.version(name) for name in packages}
    return found.model_copy(update={"packages": found.packages | versions})
