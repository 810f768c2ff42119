"""Writes the folder of a plain export: load.py, and a copy of the saved weights."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType

import torch

from toolkit.base.errors import ExportError, UserError
from toolkit.base.files import write_atomically
from toolkit.checkpoint.manifest import WEIGHTS_FILE
from toolkit.exporting.formats.format import Subject, Written
from toolkit.exporting.formats.plain.builder import building_lines, zoo_call
from toolkit.exporting.formats.plain.program import new_sources, program_text
from toolkit.exporting.formats.plain.sources import Sources
from toolkit.exporting.formats.plain.structure import Difference, difference_of
from toolkit.exporting.graph import run_eager
from toolkit.exporting.parity import check_tolerance, compare
from toolkit.exporting.quiet import hushed
from toolkit.exporting.saved import SavedModel
from toolkit.hooks.modes import without_fast_path
from toolkit.hooks.tensors import tensors_in
from toolkit.zoo.settings import ZooModel


def write_folder(subject: Subject, path: Path) -> Written:
    """Writes `load.py` and `model.safetensors` into a new folder.

    Raises:
        ExportError: the model was not loaded from a saved one, a stand-in in it has no plain form, or the code that
            builds the unmodified model cannot be written as code.
    """
    saved = subject.saved
    if saved is None:
        raise ExportError(
            "the format plain describes a model by its difference to the unmodified one, so it needs a saved model: "
            "toolkit.export_run(directory, settings), or python -m toolkit.export DIR"
        )
    difference = difference_of(saved, subject.model)
    path.mkdir()
    shutil.copyfile(saved.folder / WEIGHTS_FILE, path / WEIGHTS_FILE)
    text = _text(subject, saved, difference, is_short=True)
    if difference.stand_ins and not _computes_the_same(text, subject, path, saved):
        text = _text(subject, saved, difference, is_short=False)
    write_atomically(path / "load.py", text)
    return Written((path,), subject.inputs, subject.outputs)


def _text(subject: Subject, saved: SavedModel, difference: Difference, *, is_short: bool) -> str:
    """Returns the text of load.py.

    Raises:
        ExportError: the code that builds the unmodified model cannot be written.
    """
    sources = new_sources()
    try:
        body = _body(saved, sources)
        return program_text(subject, sources, body, difference, is_short=is_short)
    except UserError as error:
        raise ExportError(
            f"the code that builds the unmodified model cannot be written into load.py: {error}; let build_model of "
            "the task be, or only call, a function or class at the top level of a file"
        ) from error


def _body(saved: SavedModel, sources: Sources) -> list[str]:
    if isinstance(saved.origin, ZooModel):
        return [f"return {zoo_call(saved.origin.name, saved.origin.arguments, sources)}"]
    return building_lines(saved.origin.build_model, sources)


def _computes_the_same(text: str, subject: Subject, path: Path, saved: SavedModel) -> bool:
    """Returns whether a program's model computes what the model does; the programs are the shorter and the longer one.

    The longer one is needed where blocks return more than a tensor, or the model reads their attributes.
    """
    inputs = saved.example_inputs(2)
    names, outputs = run_eager(subject.model, inputs)
    tolerance = subject.settings.tolerance
    assert tolerance is not None
    module = ModuleType("load_of_plain_export")
    module.__file__ = str(path / "load.py")
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        with hushed(), without_fast_path(), torch.no_grad():
            exec(compile(text, "load.py", "exec"), vars(module))
            found = tensors_in(module.load_model()(*inputs))
        check_tolerance(compare(names, outputs, found, len(inputs[0])), tolerance)
    except Exception:  # the user's model may raise anything where a block is not what it was
        return False
    finally:
        del sys.modules[module.__name__]
    return True
