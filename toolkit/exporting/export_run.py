"""Exports the model of a run, or a saved model, with what builds its unmodified model at hand."""

from __future__ import annotations

from pathlib import Path

from toolkit.exporting.export import check_free, export_model
from toolkit.exporting.formats.registry import format_of, path_of
from toolkit.exporting.report import ExportReport, ExportSettings
from toolkit.exporting.saved import open_saved
from toolkit.tasks.task import Task


def export_run(
    directory: Path | str, settings: ExportSettings, *, task: Task | None = None, path: Path | str | None = None
) -> ExportReport:
    """Writes the model of a run for other programs, as `python -m toolkit.export` does, and returns the report.

    directory: the folder of a run, or of a saved model.
    task: the task that the run was made for, if that is your own.
    path: what is written; None stands for `exported` in that folder, with the suffix of the format. The report lies
        beside it, in `path`.json.

    Raises:
        CheckpointError: there is no saved model, or it is damaged.
        ExportError: the model was made for another task, or as `export_model`.
    """
    path = path_of(Path(directory), settings) if path is None else Path(path)
    check_free(path)
    format_of(settings)  # what is wrong shows before a model is loaded
    saved = open_saved(Path(directory), task)
    return export_model(
        saved.load(),
        saved.example_inputs,
        path,
        settings,
        weights_sha256=saved.manifest.weights.sha256,
        dense=saved.build_dense() if settings.against_dense else None,
        saved=saved,
    )
