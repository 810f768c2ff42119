"""Lists every file format; no other module knows them all. Nothing here imports torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from toolkit.base.errors import ExportError
from toolkit.base.words import did_you_mean
from toolkit.exporting.formats.format import FileFormat
from toolkit.exporting.formats.onnx import ONNX
from toolkit.exporting.formats.plain.format import PLAIN
from toolkit.exporting.formats.torch_export import TORCH_EXPORT
from toolkit.exporting.report import ExportSettings

FILE_FORMATS: Final[dict[str, FileFormat]] = {each.name: each for each in (ONNX, TORCH_EXPORT, PLAIN)}

_OF_ALL = ("format", "batch_size", "tolerance")


def format_of(settings: ExportSettings) -> FileFormat:
    """Returns the format that the settings name.

    Raises:
        ExportError: there is no such format, it does not take one of the settings, or a package that it needs is not
            installed.
    """
    name = settings.format
    if name not in FILE_FORMATS:
        choices = ", ".join(FILE_FORMATS)
        raise ExportError(f"{name!r} is no format; {did_you_mean(name, FILE_FORMATS)}choose one of: {choices}")
    chosen = FILE_FORMATS[name]
    for given in settings.given():
        if given not in (*_OF_ALL, *chosen.takes):
            takers = " or ".join(each.name for each in FILE_FORMATS.values() if given in each.takes)
            option = "--repeats" if given == "latency_repeats" else f"--{given.replace('_', '-')}"
            raise ExportError(f"{option}: is for --format {takers}, not for {name}; leave it out")
    if settings.against_dense and not settings.latency_repeats:
        raise ExportError("--against-dense: is timed, so --repeats must be 1 or more")
    missing = [package for package in chosen.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(
            f"the format {name} needs {', '.join(missing)}, which is not installed; run "
            "pip install 'depth-width-toolkit[export]'"
        )
    return chosen


def path_of(directory: Path, settings: ExportSettings) -> Path:
    """Returns the path of an exported model where none is given: `exported` with the suffix of the format.

    Raises:
        ExportError: as `format_of`.
    """
    return directory / f"exported{format_of(settings).suffix}"
