"""Exports a model: the file appears only after it was read back and computed what the model does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from toolkit.base.errors import ExportError
from toolkit.base.files import file_sha256, move_file, write_atomically
from toolkit.exporting.formats.format import FileFormat, Runner, Subject, Written
from toolkit.exporting.formats.registry import format_of
from toolkit.exporting.graph import input_names, open_axes, trace_graph
from toolkit.exporting.parity import check_tolerance, compare
from toolkit.exporting.quiet import explained
from toolkit.exporting.report import ExportedFile, ExportReport, ExportSettings, Parity
from toolkit.exporting.saved import SavedModel
from toolkit.exporting.timing import time_beside_dense, time_beside_model
from toolkit.exporting.tries import InputsOf, Try, infos_of, tries_of
from toolkit.measure.environment import describe_environment
from toolkit.measure.results import Environment
from toolkit.stand_ins.decisions import gated_layers, without_gates


@dataclass(frozen=True)
class _Job:
    """Holds what is to be exported, and what the model computes for each batch size."""

    model: nn.Module
    format: FileFormat
    settings: ExportSettings
    threads: int
    tries: Mapping[int, tuple[Try, ...]]
    saved: SavedModel | None


@dataclass(frozen=True)
class _Checked:
    """Holds a file that was read back and computes what the model does, at the batch sizes of `parity`."""

    written: Written
    run: Runner
    parity: tuple[Parity, ...]


def export_model(
    model: nn.Module,
    example_inputs_of: InputsOf,
    path: Path | str,
    settings: ExportSettings,
    *,
    weights_sha256: str | None = None,
    dense: nn.Module | None = None,
    saved: SavedModel | None = None,
) -> ExportReport:
    """Writes a model to `path`, checks the file, writes the report to `path`.json and returns the report.

    Where the format cannot express the model for any batch size, the file has a fixed one, and `fixed_because` in the
    report says why. A file for the other batch size is then made, checked and removed too.

    model: a model on the CPU, which is not changed.
    example_inputs_of: returns the model's positional inputs for n examples; the first dimension of each is n.
    weights_sha256: the hash of the saved model's weights, which is copied to the report.
    dense: the unmodified model, for the setting `against_dense`.
    saved: where `model` was loaded from, for formats that need it; `toolkit.export_run` gives it.

    Raises:
        ExportError: the file exists, the settings do not go together, the format cannot express the model (with the
            exporter's reason), or the file does not compute what the model does. No file is left behind.
    """
    check_free(path := Path(path))
    chosen = format_of(settings)
    if settings.against_dense != (dense is not None):
        raise ExportError(
            "the setting against_dense and the unmodified model `dense` go together; give both or neither"
        )
    settings = settings.model_copy(update={"tolerance": settings.tolerance or chosen.tolerance})
    model = _without_decisions(model, settings) if "constant_options" in chosen.takes else model
    job = _job(model, chosen, settings, example_inputs_of, saved)
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    try:
        part.mkdir(parents=True)
        checked, batch_size, fixed_because = _export(job, part, path.name)
        beside = None if dense is None else _dense(job, dense, example_inputs_of, part, is_fixed=batch_size is not None)
        report = _report(job, checked, beside, (batch_size, fixed_because), weights_sha256)
        for file in reversed(checked[batch_size or 1].written.files):  # the main file, which names the others, is last
            move_file(file, path.with_name(file.name))
        write_atomically(path.with_name(f"{path.name}.json"), report.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror}); choose another path") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return report


def check_free(path: Path) -> None:
    """Raises ExportError where something lies at the path of an export already."""
    if path.exists():
        raise ExportError(f"{path}: exists already; remove it or choose another path")


def _job(
    model: nn.Module, chosen: FileFormat, settings: ExportSettings, inputs_of: InputsOf, saved: SavedModel | None
) -> _Job:
    return _Job(
        model=model,
        format=chosen,
        settings=settings,
        threads=settings.threads or torch.get_num_threads(),
        tries=tries_of(model, inputs_of, settings),
        saved=saved,
    )


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


def _dense(job: _Job, dense: nn.Module, inputs_of: InputsOf, part: Path, *, is_fixed: bool) -> Mapping[int, _Checked]:
    """Returns the checked files of the unmodified model, for timing: of fixed batch size if the other file is.

    Raises:
        ExportError: as `export_model`; the message says that it is about the unmodified model.
    """
    settings = job.settings.model_copy(update={"static_batch": job.settings.static_batch or is_fixed})
    (part := part / "dense").mkdir()
    try:
        return _export(_job(dense, job.format, settings, inputs_of, None), part, "dense")[0]
    except ExportError as error:
        raise ExportError(f"the unmodified model, to time against: {error}; leave out --against-dense") from error


def _report(
    job: _Job,
    checked: Mapping[int, _Checked],
    dense: Mapping[int, _Checked] | None,
    batch: tuple[int | None, str | None],
    weights_sha256: str | None,
) -> ExportReport:
    """Returns the report of the file that is kept, with the parity of every batch size; times the file if asked to."""
    batch_size, fixed_because = batch
    settings, written = job.settings, checked[batch_size or 1].written
    how = settings.format, job.threads, settings.latency_repeats
    inputs = {size: tries[0].inputs for size, tries in job.tries.items() if settings.latency_repeats}
    return ExportReport(
        settings=settings,
        files=tuple(_describe(file, written.files[0].parent) for file in _files_in(written.files)),
        opset=written.opset,
        batch_size=batch_size,
        fixed_because=fixed_because,
        inputs=written.inputs,
        outputs=written.outputs,
        parity=tuple(entry for size in job.tries for entry in checked[size].parity if entry.batch_size == size),
        latency=tuple(time_beside_model(checked[size].run, job.model, inputs[size], *how) for size in inputs),
        against_dense=tuple(
            time_beside_dense(checked[size].run, dense[size].run, inputs[size], *how) for size in inputs if dense
        ),
        weights_sha256=weights_sha256,
        environment=_environment(job.format.packages),
    )


def _export(job: _Job, part: Path, name: str) -> tuple[dict[int, _Checked], int | None, str | None]:
    """Returns the checked file of each batch size, the fixed batch size (None: any), and why it is fixed."""
    reason = None
    if not job.settings.static_batch:
        try:
            checked = _export_one(job, part / "any" / name, tuple(job.tries), any_batch=True)
            return dict.fromkeys(job.tries, checked), None, None
        except ExportError as error:
            if "static_batch" not in job.format.takes:
                raise
            reason = str(error)
    try:
        fixed = {size: _export_one(job, part / str(size) / name, (size,), any_batch=False) for size in job.tries}
    except ExportError as error:
        if reason in (None, str(error)):
            raise
        raise ExportError(f"{error}; and for any batch size: {reason}") from error
    return fixed, job.settings.batch_size or 1, reason


def _export_one(job: _Job, path: Path, sizes: tuple[int, ...], *, any_batch: bool) -> _Checked:
    path.parent.mkdir()
    traced = job.tries[max(sizes)][0]
    axes = open_axes(input_names(job.model, len(traced.inputs)), job.settings.dynamic, any_batch=any_batch)
    inputs, outputs = infos_of(job.model, traced)
    subject = Subject(
        model=job.model,
        settings=job.settings,
        inputs=inputs,
        outputs=outputs,
        trace=lambda: trace_graph(job.model, traced.inputs, traced.names, axes),
        saved=job.saved,
    )
    written = job.format.write(subject, path)
    tries = [(size, each) for size in sizes for each in job.tries[size]]
    shown = " and ".join(map(str, sizes))
    with explained(f"the exported {job.format.name} file cannot be read back"):
        run = job.format.read(path, job.threads)
    with explained(f"the exported file does not run at batch size {shown}"), torch.no_grad():
        results = run([tuple(tensor.detach().clone() for tensor in each.inputs) for _, each in tries])
    parity: list[Parity] = []
    for (size, each), found in zip(tries, results, strict=True):
        compared = compare(each.names, each.outputs, found, size)
        parity += [entry.model_copy(update={"axes": each.axes}) for entry in compared]
    assert job.settings.tolerance is not None
    check_tolerance(parity, job.settings.tolerance)
    return _Checked(written, run, tuple(parity))


def _files_in(paths: tuple[Path, ...]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _describe(file: Path, folder: Path) -> ExportedFile:
    name = file.relative_to(folder).as_posix()
    return ExportedFile(name=name, bytes=file.stat().st_size, sha256=file_sha256(file))


def _environment(packages: tuple[str, ...]) -> Environment:
    """Returns the environment of this process, with the versions of `packages` added."""
    environment = describe_environment()
    versions = {name: metadata.version(name) for name in packages}
    return environment.model_copy(update={"packages": environment.packages | versions})
