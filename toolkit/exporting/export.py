"""Exports a model: the file appears only after it was read back and computed what the model does."""

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
from toolkit.stand_ins.decisions import gated_layers, without_gates

_WARMUP = 3


@dataclass(frozen=True)
class _Example:
    """Holds inputs of one batch size, and the names and values of the model's outputs for them."""

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
    """Holds a file that was read back and computes what the model does, at the batch sizes of `parity`."""

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
    """Writes a model to `path`, checks the file, writes the report to `path`.json and returns the report.

    Where the format cannot express the model for any batch size, the file has a fixed batch size, and `fixed_because`
    in the report says why. A file for the other batch size is then made, checked and removed too.

    model: a model on the CPU, which is not changed.
    example_inputs_of: returns the model's positional inputs for n examples; the first dimension of each is n.
    weights_sha256: the hash of the saved model's weights, which is copied to the report.

    Raises:
        ExportError: the file exists, the format cannot express the model (with the exporter's reason), the model has
            gates, or the file does not compute what the model does. No file is left behind.
    """
    path = Path(path)
    if path.exists():
        raise ExportError(f"{path}: exists already; remove it or choose another path")
    require_packages(settings.format)
    model = _without_decisions(model, settings)
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
        for file in reversed(checked[batch_size or 1].written.files):  # the main file, which names the others, is last
            move_file(file, path.with_name(file.name))
        write_atomically(path.with_name(f"{path.name}.json"), report.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def _without_decisions(model: nn.Module, settings: ExportSettings) -> nn.Module:
    """Returns a model whose work does not depend on its input.

    Raises:
        ExportError: it has gates, and their usual options were not asked for, or the other way round.
    """
    layers = gated_layers(model)
    if settings.constant_options and not layers:
        raise ExportError("--constant-options is for models with gates, and this one has none; leave it out")
    if layers and not settings.constant_options:
        raise ExportError(
            f"{len(layers)} layers have gates (the first is {next(iter(layers))}), which choose for each input what is "
            "computed, and one graph cannot hold that; --constant-options exports the model in which each layer "
            "always takes the option that its gate takes most often"
        )
    return without_gates(model) if layers else model


def _report(
    job: _Job,
    checked: Mapping[int, _Checked],
    batch_size: int | None,
    fixed_because: str | None,
    weights_sha256: str | None,
) -> ExportReport:
    """Returns the report of the file that is kept, with the parity of every batch size; times the file if asked to."""
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
        raise ExportError(
            f"the first dimension of every example input must be the batch size, {size}; the shapes are {shapes}"
        )
    return _Example(inputs, *run_eager(model, inputs))


def _export(job: _Job, part: Path, name: str) -> tuple[dict[int, _Checked], int | None, str | None]:
    """Returns the checked file of each batch size, the fixed batch size (None: any), and why it is fixed."""
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
            outputs = run(tuple(tensor.detach().clone() for tensor in example.inputs))
        parity += compare(example.names, example.outputs, outputs, size)
    check_tolerance(parity, settings.tolerance)
    return _Checked(written, run, tuple(parity))


class _Timed(nn.Module):
    """Makes an exported file a module, because only modules can be timed."""

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
    """Returns the environment of this process, with the versions of `packages` added."""
    environment = describe_environment()
    versions = {name: metadata.version(name) for name in packages}
    return environment.model_copy(update={"packages": environment.packages | versions})
