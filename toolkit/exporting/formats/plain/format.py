"""Describes the format `plain`. Nothing here imports torch."""

from __future__ import annotations

import importlib
from pathlib import Path

from toolkit.exporting.formats.format import FileFormat, Runner, Subject, Written

_FOLDER = __name__.rpartition(".")[0]


def _write(subject: Subject, path: Path) -> Written:
    written: Written = importlib.import_module(f"{_FOLDER}.write").write_folder(subject, path)
    return written


def _read(path: Path, threads: int) -> Runner:
    runner: Runner = importlib.import_module(f"{_FOLDER}.process").runner_without_toolkit(path, threads)
    return runner


PLAIN = FileFormat(
    name="plain",
    suffix="_plain",
    summary="a folder with weights and a load.py that needs no toolkit",
    packages=("safetensors",),
    takes=frozenset({"threads"}),
    tolerance=1e-5,
    write=_write,
    read=_read,
    note="Its load.py was run in a process that cannot import this toolkit. What it needs is named at its top.",
)
